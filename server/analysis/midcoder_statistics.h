#ifndef CUPOLA_SERVER_ANALYSIS_MIDCODER_STATISTICS_H_
#define CUPOLA_SERVER_ANALYSIS_MIDCODER_STATISTICS_H_

#include <array>
#include <cstdint>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/state_file.h"

namespace cupola::analysis {

// How many there are of what the sums are about.
struct MidcoderSizes {
  int64_t features = 0;  // f: the registered ones, not all of the dictionary
  int64_t neurons = 0;   // n
  int64_t width = 0;     // d: of the MLP's output

  friend bool operator==(const MidcoderSizes&, const MidcoderSizes&) = default;
};

// What the sums are taken over: some tokens' values, float32, all on one
// device.
struct MidcoderValues {
  at::Tensor acts;      // [tokens, f]: the registered features' activations
  at::Tensor mid;       // [tokens, n]: the midcoder's pre-activations
  at::Tensor pre_relu;  // [tokens, n]: x W_in + b_in, the MLP's own
  at::Tensor mlp_out;   // [tokens, d]
};

// The nineteen sums of source notebook D over a corpus, by their names there;
// with a the activations and gate_n = 1 where mid_n > 0:
//
//   act_gate_sum, act_sq_gate_sum          [f, n]  a gate, a^2 gate
//   act_sum, act_sq_sum, act_counts        [f]     a, a^2, 1[a > 0]
//   act_cov_sum, act_cov_counts            [f, f]  a a', 1[both > 0]
//   gate_act_counts                        [f, n]  1[a > 0] gate
//   gate_counts, mid_sum, gate_mid_sum     [n]     gate, mid, gate mid
//   counts                                 []      1
//   pre_relu_sum, pre_relu_cube_sum        [n]     pre_relu, its cube
//   pre_relu_sum_no_act                    [f, n]  1[a > 0] pre_relu: of the
//                                          active ones, whatever its name says
//   pre_relu_cov_sum                       [n, n]  uncentred
//   mlp_out_sum                            [d]
//   mlp_out_sum_no_act                     [f, d]  1[a > 0] mlp_out
//   mlp_out_cov_sum                        [d, d]  uncentred
//
// An Accumulator. A chunk's products are in float32 on its device, the totals
// in float64 on the host: counts are exact up to 2^24 tokens a chunk.
class MidcoderStatistics {
 public:
  static constexpr uint32_t kVersion = 1;
  static constexpr int kSums = 19;

  explicit MidcoderStatistics(const MidcoderSizes& sizes);
  static double Bytes(const MidcoderSizes& sizes);

  // INVALID_ARGUMENT: other shapes or types.
  absl::Status Add(const MidcoderValues& values);
  absl::Status Merge(const MidcoderStatistics& other);

  // Body: i64 features, neurons, width; the sums, f64, in the order above.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);

  const MidcoderSizes& sizes() const { return sizes_; }
  // The names above, in their order.
  static const std::array<absl::string_view, kSums>& Names();
  // float64 on the host, not to be changed. INVALID_ARGUMENT: no such name.
  absl::StatusOr<at::Tensor> Sum(absl::string_view name) const;

 private:
  const MidcoderSizes sizes_;
  std::vector<at::Tensor> sums_;  // [kSums], in the order of Names
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_MIDCODER_STATISTICS_H_
