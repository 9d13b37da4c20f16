#ifndef CUPOLA_SERVER_ANALYSIS_ACCUMULATOR_H_
#define CUPOLA_SERVER_ANALYSIS_ACCUMULATOR_H_

#include <concepts>
#include <cstdint>

#include "absl/status/status.h"
#include "storage/state_file.h"

namespace cupola::analysis {

// What is kept of a corpus, in a memory that does not grow with it. The
// contract of every such class A:
//
//   zero     A(options): nothing has been added. The options are all that the
//            meaning of the numbers hangs on, and bound the memory: A::Bytes,
//            with the options and what else it needs, tells the most that it
//            can take, in double, before anything is allocated.
//   update   methods of A's own, which take one chunk's answers. Whether they
//            can fail or not, a failed one leaves the state as it was.
//   Merge    adds what another of the same options has accumulated. The result
//            is as if the other's chunks had been added here after those that
//            are: counts, maxima, top-k lists (ties included) have the same
//            bits; sums differ by the rounding of one addition, 1e-6 of their
//            size at most. INVALID_ARGUMENT where the options differ; nothing
//            has changed then.
//   Save,    the body of a state file (storage/state_file.h). Saved and
//   Restore  restored into a zero of the same options it is the same state, bit
//            for bit, and goes on alike. DATA_LOSS where the bytes are of other
//            options or no state at all: lengths and indices that were read are
//            checked before they are used, and the object is then to be thrown
//            away.
//   kVersion of the bytes: raise it whenever they change.
//   finish   const methods of A's own: what is asked of the result, often and
//            from many threads at once.
//
// Not thread-safe otherwise. Nothing here knows what a job is: rows of the
// dataset are told with the update, where contexts are kept.
template <typename A>
concept Accumulator = requires(A a, const A& other,
                               storage::StateWriter* writer,
                               storage::StateReader* reader) {
  { A::kVersion } -> std::convertible_to<uint32_t>;
  { a.Merge(other) } -> std::same_as<absl::Status>;
  { other.Save(writer) } -> std::same_as<absl::Status>;
  { a.Restore(reader) } -> std::same_as<absl::Status>;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_ACCUMULATOR_H_
