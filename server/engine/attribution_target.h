#ifndef CUPOLA_SERVER_ENGINE_ATTRIBUTION_TARGET_H_
#define CUPOLA_SERVER_ENGINE_ATTRIBUTION_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/attribution_requests.h"
#include "server/engine/question.h"

// What an attribution is to, checked against the model and dictionary that the
// request names. Errors are INVALID_ARGUMENT with field, value and what is
// accepted.

namespace cupola::engine {

// Token ids inside the vocabulary.
absl::Status CheckTokens(const std::vector<int64_t>& tokens,
                         const model::ModelConfig& config,
                         absl::string_view field);

// Settles which residual `query` takes apart (its layer is -1 where the request
// names none) and how many tokens each prompt has, and returns how many targets
// there are. Its splits are in place.
absl::StatusOr<int64_t> SettleTarget(const AttributeRequest& request,
                                     const Question& question,
                                     const Sources& sources,
                                     analysis::AttributionQuery* query);

// The tokens of each prompt, as analysis::AttributionLists.
std::vector<std::vector<int64_t>> ListsOf(const AttributeRequest& request,
                                          size_t prompt);

// Whether the latents' dictionary reads attn.hook_z, so that the answer tells
// of source positions or heads instead of the residual's components.
bool ThroughAttention(const Question& question, const Sources& sources,
                      const analysis::AttributionQuery& query);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ATTRIBUTION_TARGET_H_
