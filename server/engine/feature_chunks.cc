#include "server/engine/feature_chunks.h"

#include <memory>
#include <utility>

#include "server/engine/ask_features.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

namespace {

// Computes them. INTERNAL: not of `tokens` tokens.
absl::StatusOr<SparseArrays> Compute(const FeaturesRequest& request,
                                     const TokenJob& job, size_t which,
                                     size_t tokens, const JobHost& host,
                                     const RequestContext& context) {
  ASSIGN_OR_RETURN(FeaturesAnswer answer, host.features(request, context));
  RETURN_IF_ERROR(job.CheckSame(answer.provenance, which));
  if (ViewOf(answer.features).rows != static_cast<int64_t>(tokens)) {
    return absl::InternalError("a chunk's features are not those asked for");
  }
  return std::move(answer.features);
}

}  // namespace

analysis::SparseView ViewOf(const SparseArrays& features) {
  return analysis::ViewRows(features.indptr, features.indices, features.values,
                            features.columns);
}

absl::StatusOr<SparseArrays> FeaturesOfChunk(const FeaturesRequest& request,
                                             const TokenJob& job, size_t which,
                                             int64_t chunk, const JobHost& host,
                                             const RequestContext& context) {
  size_t tokens = 0;
  for (const auto& list : request.positions.lists) tokens += list.size();
  const std::shared_ptr<const ActivationStore> store =
      host.stores->Find(job.weights.at(which).activations);
  if (store != nullptr && store->Has(chunk)) {
    absl::StatusOr<StoredTokens> stored = store->Read(chunk);
    // What is damaged is computed.
    if (stored.ok() && stored->row.size() == tokens) {
      return std::move(stored->features);
    }
  }
  return Compute(request, job, which, tokens, host, context);
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
  ASSIGN_OR_RETURN(chunk.features,
                   Compute(request, job, 0, chunk.row.size(), host, context));
  return chunk;
}

absl::StatusOr<FeatureChunk> AskFeatureChunk(
    FeaturesRequest request, const TokenJob& job, int64_t chunk,
    const std::vector<RowPiece>& pieces, const JobHost& host,
    const RequestContext& context) {
  request.prompts.emplace();
  RETURN_IF_ERROR(job.rows.Ask(pieces, &*request.prompts, &request.positions));
  FeatureChunk made;
  job.rows.Label(pieces, request.positions, &made.row, &made.position);
  ASSIGN_OR_RETURN(made.features,
                   FeaturesOfChunk(request, job, 0, chunk, host, context));
  return made;
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
