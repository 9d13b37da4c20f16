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
// coactivation, direction_statistics.

namespace cupola::engine {

// The features of a chunk's tokens, and where these stand in the corpus.
struct FeatureChunk {
  FeaturesAnswer answer;
  std::vector<int64_t> row;       // [tokens]: of the dataset
  std::vector<int32_t> position;  // [tokens]

  // Of this object's arrays.
  analysis::SparseView View() const;
  analysis::TokenPlaces Places() const { return {row.data(), position.data()}; }
};

// Asks for them. `request`: with prompts and with positions of each; `rows`:
// the prompts' in the dataset. The errors are the question's, and
// TokenJob::CheckSame's.
absl::StatusOr<FeatureChunk> AskFeatureChunk(const FeaturesRequest& request,
                                             const std::vector<int64_t>& rows,
                                             const TokenJob& job,
                                             const JobHost& host,
                                             const RequestContext& context);
// The same of pieces of the job's rows. `request`: without prompts.
absl::StatusOr<FeatureChunk> AskFeatureChunk(
    FeaturesRequest request, const TokenJob& job,
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
