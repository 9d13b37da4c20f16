#include "server/engine/prompt_resolution.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

// Of all prompts together, repeated ones counted.
constexpr int64_t kMaxPositions = int64_t{1} << 24;

absl::Status AtPrompt(size_t i, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat("prompts[", i, "]: ", status.message()));
}

absl::Status CheckIds(size_t i, const std::vector<int32_t>& ids,
                      const model::ModelConfig& config) {
  if (ids.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompts[", i, "] is empty: at least one token is needed"));
  }
  if (static_cast<int64_t>(ids.size()) > config.n_ctx) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompts[", i, "] has ", ids.size(),
                     " tokens; the model's context is ", config.n_ctx));
  }
  for (size_t p = 0; p < ids.size(); ++p) {
    if (ids[p] < 0 || ids[p] >= config.d_vocab) {
      return absl::InvalidArgumentError(absl::StrCat(
          "prompts[", i, "]: token id ", ids[p], " at position ", p,
          " is outside the vocabulary (0 to ", config.d_vocab - 1, ")"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> WantsBos(const Prompts& prompts,
                              std::optional<bool> declared,
                              const model::ModelSource& model) {
  const bool any_text =
      std::any_of(prompts.prompts.begin(), prompts.prompts.end(),
                  [](const Prompt& prompt) { return prompt.is_text; });
  if (prompts.prepend_bos.has_value()) {
    if (!any_text) {
      return absl::InvalidArgumentError(
          "prepend_bos is set, but no prompt is text: token ids are used as "
          "they are");
    }
    if (*prompts.prepend_bos && !model.tokenizer().bos_id().has_value()) {
      return absl::InvalidArgumentError(
          "prepend_bos is true, but the model's tokenizer has no BOS token");
    }
    return *prompts.prepend_bos;
  }
  return declared.value_or(model.config().default_prepend_bos) &&
         model.tokenizer().bos_id().has_value();
}

}  // namespace

absl::StatusOr<ResolvedPrompts> ResolvePrompts(const Prompts& prompts,
                                               std::optional<bool> declared,
                                               const model::ModelSource& model,
                                               int64_t max_tokens) {
  if (prompts.prompts.empty()) {
    return absl::InvalidArgumentError("prompts is empty: give at least one");
  }
  ResolvedPrompts resolved;
  ASSIGN_OR_RETURN(resolved.prepended_bos, WantsBos(prompts, declared, model));
  int64_t total = 0;
  for (size_t i = 0; i < prompts.prompts.size(); ++i) {
    const Prompt& prompt = prompts.prompts[i];
    std::vector<int32_t> ids = prompt.ids;
    if (prompt.is_text) {
      if (prompt.text.empty()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "prompts[", i, "] is empty: at least one character is needed"));
      }
      auto encoded = model.tokenizer().Encode(prompt.text);
      if (!encoded.ok()) return AtPrompt(i, encoded.status());
      ids = *std::move(encoded);
      if (resolved.prepended_bos) {
        ids.insert(ids.begin(), *model.tokenizer().bos_id());
      }
    }
    RETURN_IF_ERROR(CheckIds(i, ids, model.config()));
    total += ids.size();
    resolved.token_ids.push_back(std::move(ids));
  }
  if (total > max_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("prompts hold ", total, " tokens; one request takes ",
                     max_tokens, ": split it"));
  }
  return resolved;
}

absl::StatusOr<std::vector<std::vector<int64_t>>> ResolvePositions(
    const Positions& positions,
    const std::vector<std::vector<int32_t>>& token_ids,
    absl::string_view field) {
  const bool per_prompt = positions.kind == Positions::Kind::kPerPrompt;
  if (per_prompt && positions.lists.size() != token_ids.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has ", positions.lists.size(), " lists for ",
                     token_ids.size(), " prompts"));
  }
  std::vector<std::vector<int64_t>> resolved;
  int64_t rows_left = kMaxPositions;
  for (size_t i = 0; i < token_ids.size(); ++i) {
    const int64_t length = token_ids[i].size();
    std::vector<int64_t>& rows = resolved.emplace_back();
    if (positions.kind == Positions::Kind::kAll) {
      rows.resize(length);
      std::iota(rows.begin(), rows.end(), 0);
      continue;
    }
    const std::vector<int64_t>& asked = positions.lists[per_prompt ? i : 0];
    rows_left -= static_cast<int64_t>(asked.size());
    if (rows_left < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat(field, ": more than ", kMaxPositions,
                       " of all prompts; accepted: ", kMaxPositions));
    }
    for (int64_t position : asked) {
      if (position < -length || position >= length) {
        return absl::InvalidArgumentError(absl::StrCat(
            field, ": ", position, " is outside prompts[", i, "], which has ",
            length, " tokens (", -length, " to ", length - 1, ")"));
      }
      rows.push_back(position < 0 ? position + length : position);
    }
  }
  return resolved;
}

}  // namespace cupola::engine
