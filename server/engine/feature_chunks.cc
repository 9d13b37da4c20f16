#include "server/engine/feature_chunks.h"

#include <utility>

#include "server/engine/ask_features.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

analysis::SparseView FeatureChunk::View() const {
  const SparseArrays& features = answer.features;
  return analysis::ViewRows(features.indptr, features.indices, features.values,
                            features.columns);
}

absl::StatusOr<FeatureChunk> AskFeatureChunk(const FeaturesRequest& request,
                                             const std::vector<int64_t>& rows,
                                             const TokenJob& job,
                                             const JobHost& host,
                                             const RequestContext& context) {
  FeatureChunk chunk;
  for (size_t i = 0; i < rows.size(); ++i) {
    for (int64_t p : request.positions.lists[i]) {
      chunk.row.push_back(rows[i]);
      chunk.position.push_back(static_cast<int32_t>(p));
    }
  }
  ASSIGN_OR_RETURN(chunk.answer, host.features(request, context));
  RETURN_IF_ERROR(job.CheckSame(chunk.answer.provenance));
  if (chunk.View().rows != static_cast<int64_t>(chunk.row.size())) {
    return absl::InternalError("a chunk's features are not those asked for");
  }
  return chunk;
}

absl::StatusOr<FeatureChunk> AskFeatureChunk(
    FeaturesRequest request, const TokenJob& job,
    const std::vector<RowPiece>& pieces, const JobHost& host,
    const RequestContext& context) {
  request.prompts.emplace();
  RETURN_IF_ERROR(job.rows.Ask(pieces, &*request.prompts, &request.positions));
  std::vector<int64_t> rows;
  for (const RowPiece& piece : pieces) {
    rows.push_back(job.rows.first_row() + piece.row);
  }
  return AskFeatureChunk(request, rows, job, host, context);
}

absl::StatusOr<ResolvedRows> ResolveFeatureRows(
    const FeaturesRequest& request, const std::optional<Prompts>& prompts,
    const std::optional<DatasetRows>& rows, const Positions& positions,
    const Sources& sources, const JobHost& host,
    const RequestContext& context) {
  const auto ask = [&](const Prompts& some, const Positions& of_some) {
    FeaturesRequest about = request;
    about.prompts = some;
    about.positions = of_some;
    return AskFeatures(about, sources, host.limits);
  };
  return ResolveRows(prompts, rows, positions, sources, host, context, ask);
}

absl::StatusOr<Question> AskOneToken(FeaturesRequest request,
                                     const Sources& sources,
                                     const Limits& limits) {
  request.prompts = OneToken();
  return AskFeatures(request, sources, limits);
}

}  // namespace cupola::engine
