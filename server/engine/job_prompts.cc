#include "server/engine/job_prompts.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

// Prompts that are validated in one go.
constexpr size_t kValidatedPrompts = 16;

}  // namespace

Prompts OneToken() {
  Prompts prompts;
  prompts.prompts.push_back({false, "", {0}});
  return prompts;
}

absl::StatusOr<ResolvedRows> ResolveRows(
    const std::optional<Prompts>& prompts,
    const std::optional<DatasetRows>& rows, const Positions& positions,
    const Sources& sources, const JobHost& host, const RequestContext& context,
    const std::function<absl::StatusOr<Question>(const Prompts&,
                                                 const Positions&)>& ask) {
  if (prompts.has_value() == rows.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompts and rows: ", rows.has_value() ? "both" : "none",
                     " of them set; accepted: one of the two"));
  }
  ResolvedRows resolved;
  if (rows.has_value()) {
    ASSIGN_OR_RETURN(const Question question, ask(OneToken(), {}));
    resolved.processing = question.provenance.processing;
    ASSIGN_OR_RETURN(
        resolved.rows,
        JobRows::OfDataset(*rows, positions, sources.model_name, *sources.model,
                           host.datasets, context));
    return resolved;
  }
  const auto& all = prompts->prompts;
  const bool per_prompt = positions.kind == Positions::Kind::kPerPrompt;
  if (per_prompt && positions.lists.size() != all.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("positions: ", positions.lists.size(), " lists for ",
                     all.size(), " prompts"));
  }
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<int64_t>> looked_at;
  bool any = false;
  for (size_t begin = 0; begin < all.size(); begin += kValidatedPrompts) {
    RETURN_IF_ERROR(StillWanted(context));
    const size_t end = std::min(begin + kValidatedPrompts, all.size());
    Prompts some = *prompts;
    some.prompts = {all.begin() + begin, all.begin() + end};
    Positions of_some = positions;
    if (per_prompt) {
      of_some.lists = {positions.lists.begin() + begin,
                       positions.lists.begin() + end};
    }
    const absl::StatusOr<Question> asked = ask(some, of_some);
    if (!asked.ok()) {
      return begin == 0
                 ? asked.status()
                 : absl::Status(asked.status().code(),
                                absl::StrCat("counted from prompts[", begin,
                                             "]: ", asked.status().message()));
    }
    resolved.processing = asked->provenance.processing;
    for (const auto& sequence : asked->sequences) {
      tokens.push_back(sequence->tokens);
      looked_at.push_back(sequence->positions);
      any = any || !sequence->positions.empty();
    }
  }
  if (!any) {
    return absl::InvalidArgumentError(
        "positions: none of any prompt; accepted: at least one");
  }
  resolved.rows = JobRows::OfPrompts(std::move(tokens), std::move(looked_at));
  RETURN_IF_ERROR(resolved.rows.CheckDistinct());
  return resolved;
}

}  // namespace cupola::engine
