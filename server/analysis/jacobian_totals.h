#ifndef CUPOLA_SERVER_ANALYSIS_JACOBIAN_TOTALS_H_
#define CUPOLA_SERVER_ANALYSIS_JACOBIAN_TOTALS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/state_file.h"

namespace cupola::analysis {

// What is kept of many tokens' Jacobians.
struct JacobianTotalsOptions {
  int64_t d_out = 0, d_in = 0;  // latents of the two dictionaries
  bool float64 = false;         // of the sums; else float32
  int64_t bins = 110;           // of the histogram of all |J| > 0 ...
  double bins_end = 1.1;        // ... equal ones from 0 to here, and one behind

  friend bool operator==(const JacobianTotalsOptions&,
                         const JacobianTotalsOptions&) = default;
};

// Which number of a pair of latents is asked for.
enum class JacobianStatistic : uint8_t {
  kMean = 1,  // the sum by the divisor
  kSum = 2,   // of |J|
  kMax = 3,   // the largest |J|
  kCount = 4  // tokens with |J| > 0
};
// What a mean divides by.
enum class JacobianDivisor : uint8_t {
  kTokens = 1,     // all tokens: source notebook B's
  kOutActive = 2,  // the tokens at which the output latent was active: the
                   // corrected definition that its authors published later
};

struct JacobianEntry {
  int32_t out = 0, in = 0;
  double value = 0;
};

// Sum, maximum and count of |J| for each pair of an output and an input latent,
// over tokens, and one histogram over everything (source notebook B's
// accumulator). An output latent takes memory once it has been active. Adding
// the same tokens in the same order gives the same bits, whether or not the
// totals were saved and restored in between. Not thread-safe; many threads may
// read.
class JacobianTotals {
 public:
  // Of the body that Save writes: raise it when that changes.
  static constexpr uint32_t kVersion = 1;

  explicit JacobianTotals(const JacobianTotalsOptions& options);

  // The largest number of bytes that totals with so many active output latents
  // take.
  static double Bytes(const JacobianTotalsOptions& options, double outputs);

  // One token's J[out, in[i]] = values[i] for i < count; `in` may be -1:
  // padding. Also of an output latent none of whose entries differ from 0.
  struct TokenRow {
    int32_t out;
    const int32_t* in;
    const float* values;
    int64_t count;
    bool ascending;  // `in` ascends
  };
  // The rows of `tokens` tokens, in their order. Latents are in range; a token
  // names an output latent once. Several threads share the output latents.
  void Add(int64_t tokens, const std::vector<TokenRow>& rows);

  int64_t tokens() const { return tokens_; }
  // [d_out]: tokens at which each output latent was active.
  const std::vector<int64_t>& active() const { return active_; }
  // [bins + 1]; the last one: |J| >= bins_end.
  const std::vector<int64_t>& histogram() const { return histogram_; }
  const JacobianTotalsOptions& options() const { return options_; }

  // Of the d_out * d_in pairs, those whose statistic is greater than each
  // threshold. thresholds: >= 0.
  std::vector<int64_t> CountAbove(JacobianStatistic statistic,
                                  JacobianDivisor divisor,
                                  const std::vector<double>& thresholds) const;
  // The largest, descending; the lowest output, then input latent wins ties.
  // Pairs whose statistic is 0 are never among them.
  std::vector<JacobianEntry> Top(JacobianStatistic statistic,
                                 JacobianDivisor divisor, int64_t n) const;
  // [d_in] of an output latent; [d_out] of an input latent.
  std::vector<double> Row(JacobianStatistic statistic, JacobianDivisor divisor,
                          int32_t out) const;
  std::vector<double> Column(JacobianStatistic statistic,
                             JacobianDivisor divisor, int32_t in) const;

  // Adds another's tokens (see accumulator.h).
  absl::Status Merge(const JacobianTotals& other);

  // The body of a state file (version kVersion); the errors are the file's.
  // Body: i64 d_out, d_in, u8 float64, i64 bins, f64 bins_end, i64 tokens,
  // i64 active[d_out], i64 histogram[bins + 1], i64 rows, then for each row
  // i32 out, sums f32 or f64 [d_in], maxima f32 [d_in], counts u32 [d_in].
  absl::Status Save(storage::StateWriter* state) const;
  // DATA_LOSS where the body is of other options.
  absl::Status Restore(storage::StateReader* state);

 private:
  struct Sums {
    std::vector<float> narrow;  // [d_in], or empty
    std::vector<double> wide;   // [d_in], or empty
    std::vector<float> largest;
    std::vector<uint32_t> counts;
  };
  Sums& At(int32_t out);
  // What a thread counts for itself; its last bin is of values that are 0.
  using Histogram = std::vector<int64_t>;
  void AddRow(const TokenRow& row, Histogram* histogram);
  double Divisor(JacobianStatistic statistic, JacobianDivisor divisor,
                 int32_t out) const;
  static double Value(const Sums& sums, JacobianStatistic statistic,
                      double divisor, int64_t in);

  const JacobianTotalsOptions options_;
  int64_t tokens_ = 0;
  std::vector<int64_t> active_, histogram_;
  std::vector<std::unique_ptr<Sums>> rows_;  // [d_out]; null: never active
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_JACOBIAN_TOTALS_H_
