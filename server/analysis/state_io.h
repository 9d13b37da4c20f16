#ifndef CUPOLA_SERVER_ANALYSIS_STATE_IO_H_
#define CUPOLA_SERVER_ANALYSIS_STATE_IO_H_

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "storage/state_file.h"

// What accumulators' Save and Restore share.

namespace cupola::analysis {

// The elements, without their number: both sides know it from the options.
template <typename T>
absl::Status SaveVector(const std::vector<T>& values,
                        storage::StateWriter* state) {
  static_assert(std::is_trivially_copyable_v<T>);
  return state->Append(values.data(), values.size() * sizeof(T));
}

// As many elements as `values` has.
template <typename T>
absl::Status RestoreVector(storage::StateReader* state,
                           std::vector<T>* values) {
  static_assert(std::is_trivially_copyable_v<T>);
  return state->Read(values->data(), values->size() * sizeof(T));
}

// Sums of what is not negative, as they were read: DATA_LOSS where one is no
// finite number from 0.
template <typename Sums>
absl::Status CheckSums(const Sums& sums) {
  for (const auto sum : sums) {
    if (std::isfinite(sum) && sum >= 0) continue;
    return absl::DataLossError("the state has a sum that is none");
  }
  return absl::OkStatus();
}

// How many tokens a state is of, as it was read: DATA_LOSS outside 0 to `most`.
inline constexpr int64_t kMostTokens = int64_t{1} << 53;
inline absl::Status CheckTokens(int64_t tokens, int64_t most = kMostTokens) {
  if (tokens >= 0 && tokens <= most) return absl::OkStatus();
  return absl::DataLossError("the state's number of tokens is none");
}

// How many of `of` tokens, as they were read: DATA_LOSS else.
template <typename T>
absl::Status CheckCounts(const std::vector<T>& counts, int64_t of) {
  for (const int64_t count : counts) {
    if (count >= 0 && count <= of) continue;
    return absl::DataLossError("the state has a count that is none");
  }
  return absl::OkStatus();
}

// The options at the beginning of a state: DATA_LOSS where they are others.
template <typename T>
absl::Status RestoreSame(storage::StateReader* state, const T& mine) {
  T saved{};
  if (absl::Status s = state->ReadValue(&saved); !s.ok()) return s;
  if (saved != mine) {
    return absl::DataLossError("the state is of other options");
  }
  return absl::OkStatus();
}

// DATA_LOSS where bytes are left.
inline absl::Status AtEnd(const storage::StateReader& state) {
  if (state.left() == 0) return absl::OkStatus();
  return absl::DataLossError("the state goes on behind its end");
}

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_STATE_IO_H_
