#ifndef CUPOLA_SERVER_ENGINE_FEATURE_CHUNKS_H_
#define CUPOLA_SERVER_ENGINE_FEATURE_CHUNKS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/sparse_view.h"
#include "server/engine/job_kind.h"
#include "server/engine/job_prompts.h"
#include "server/engine/token_job.h"

// What jobs over a dictionary's features share: feature_statistics,
// coactivation, direction_statistics, match_features, store_activations.

namespace cupola::engine {

// `features` outlive it.
analysis::SparseView ViewOf(const SparseArrays& features);

// The features of a chunk's tokens, and where these stand in the corpus.
struct FeatureChunk {
  SparseArrays features;
  std::vector<int64_t> row;       // [tokens]: of the dataset
  std::vector<int32_t> position;  // [tokens]

  // Of this object's arrays.
  analysis::SparseView View() const { return ViewOf(features); }
  analysis::TokenPlaces Places() const { return {row.data(), position.data()}; }
};

// The features of chunk `chunk` in dictionary `which` of job.weights: from the
// store that has them (activation_stores.h), else computed. `request`: of that
// dictionary, with the chunk's prompts and positions. Errors: the question's,
// and TokenJob::CheckSame's.
absl::StatusOr<SparseArrays> FeaturesOfChunk(const FeaturesRequest& request,
                                             const TokenJob& job, size_t which,
                                             int64_t chunk, const JobHost& host,
                                             const RequestContext& context);
// Asks for them. `request`: with prompts and with positions of each; `rows`:
// the prompts' in the dataset. The errors are the question's, and
// TokenJob::CheckSame's.
absl::StatusOr<FeatureChunk> AskFeatureChunk(const FeaturesRequest& request,
                                             const std::vector<int64_t>& rows,
                                             const TokenJob& job,
                                             const JobHost& host,
                                             const RequestContext& context);
// The same of a chunk, which has these pieces of the job's rows:
// FeaturesOfChunk of the first dictionary. `request`: without prompts.
absl::StatusOr<FeatureChunk> AskFeatureChunk(
    FeaturesRequest request, const TokenJob& job, int64_t chunk,
    const std::vector<RowPiece>& pieces, const JobHost& host,
    const RequestContext& context);

// ResolveRows for jobs that ask for the features of all of them. `request`:
// without prompts.
absl::StatusOr<ResolvedRows> ResolveFeatureRows(
    const FeaturesRequest& request, const std::optional<Prompts>& prompts,
    const std::optional<DatasetRows>& rows, const Positions& positions,
    const Sources& sources, const JobHost& host, const RequestContext& context);

// The question about one token: see Identify.
absl::StatusOr<Question> AskOneToken(FeaturesRequest request,
                                     const Sources& sources,
                                     const Limits& limits);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_FEATURE_CHUNKS_H_
