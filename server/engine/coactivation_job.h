#ifndef CUPOLA_SERVER_ENGINE_COACTIVATION_JOB_H_
#define CUPOLA_SERVER_ENGINE_COACTIVATION_JOB_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/coactivations.h"
#include "server/engine/job_kind.h"

// The job kind "coactivation": which latents of a dictionary are active
// together over a corpus (analysis/coactivations.h).

namespace cupola::engine {

inline constexpr char kCoactivation[] = "coactivation";

struct CoactivationRequest {
  std::string dictionary;
  std::optional<Prompts> prompts;  // exactly one of the two
  std::optional<DatasetRows> rows;
  Positions positions;
  std::optional<model::Processing> processing;
  // 0: all pairs exactly; unset: so where they fit, else a good sample.
  std::optional<int64_t> sample;
  bool products = true;      // of activations, of exact pairs
  int64_t chunk_tokens = 0;  // 0: a good number
};

// What is asked of a result: any of these.
struct CoactivationQuery {
  std::string job;
  analysis::PairMeasure measure = analysis::PairMeasure::kCount;
  std::vector<int64_t> a, b;     // latents: all pairs of one with the other
  std::vector<int64_t> latents;  // the partners of each of these:
  int64_t top = 0;               // ... so many of the largest measure
  // The upper triangle of the matrix of all latents, diagonal included: the
  // pairs with at least min_count tokens in common (>= 1), of latents from
  // `first` on, as many rows of it as go in one answer.
  bool matrix = false;
  int64_t first = 0, min_count = 1;
};
struct CoactivationAnswer {
  int64_t tokens = 0;
  analysis::CoactivationsOptions options;
  Array values, both;                          // FLOAT64, INT64 [a, b]
  Array partner, partner_value, partner_both;  // [latents, top]: INT32
                                               // (-1: none), FLOAT64,
                                               // INT64; or [0, 0]
  Array row, column, entry, mirrored;          // INT32, INT32, FLOAT64;
                                               // FLOAT64: of (column,
                                               // row), [0] where it is
                                               // the same
  int64_t next = -1;  // the matrix goes on at this latent; -1: it does not
};

// The errors are AskFeatures', ResolveRows' and CheckOptions', and
// RESOURCE_EXHAUSTED with both numbers where all pairs would not fit.
absl::StatusOr<JobSpecification> Specify(const CoactivationRequest& request,
                                         const JobHost& host,
                                         const RequestContext& context);

absl::StatusOr<std::unique_ptr<JobWork>> MakeCoactivation(
    const std::string& specification, const JobHost& host,
    const RequestContext& context);

// `work`: MakeCoactivation's.
const analysis::Coactivations& CoactivationsOf(const JobWork& work);

// INVALID_ARGUMENT names the field; RESOURCE_EXHAUSTED: fewer latents. Many
// pairs of samples may take minutes: `poll` is asked whether the answer is
// still wanted, and what it says is an error, too. `work`: MakeCoactivation's.
absl::StatusOr<CoactivationAnswer> AnswerCoactivation(
    const JobWork& work, const CoactivationQuery& query, const Limits& limits,
    const std::function<absl::Status()>& poll);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_COACTIVATION_JOB_H_
