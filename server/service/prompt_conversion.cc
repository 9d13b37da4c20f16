#include "server/service/prompt_conversion.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/service/tensor_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;

constexpr int64_t kMaxTokenId = std::numeric_limits<int32_t>::max();

absl::StatusOr<engine::Prompt> TakePrompt(v1::Prompt* prompt, int index,
                                          bool accept_empty) {
  engine::Prompt plain;
  const std::string field = StrCat("prompts.prompts[", index, "]");
  switch (prompt->content_case()) {
    case v1::Prompt::kText:
      if (prompt->text().empty() && !accept_empty) {
        return InvalidArgumentError(
            StrCat(field, ".text is empty; accepted: at least one character"));
      }
      plain.is_text = true;
      plain.text = std::move(*prompt->mutable_text());
      return plain;
    case v1::Prompt::kTokens: {
      const auto& ids = prompt->tokens().ids();
      if (ids.empty() && !accept_empty) {
        return InvalidArgumentError(
            StrCat(field, ".tokens.ids is empty; accepted: at least one id"));
      }
      plain.is_text = false;
      plain.ids.reserve(ids.size());
      for (int i = 0; i < ids.size(); ++i) {
        if (ids[i] > kMaxTokenId) {
          return InvalidArgumentError(StrCat(field, ".tokens.ids[", i, "] is ",
                                             ids[i], "; accepted: 0 to ",
                                             kMaxTokenId));
        }
        plain.ids.push_back(static_cast<int32_t>(ids[i]));
      }
      return plain;
    }
    case v1::Prompt::CONTENT_NOT_SET:
      break;
  }
  return InvalidArgumentError(
      StrCat(field, " is empty; accepted: text or tokens"));
}

}  // namespace

absl::Status CheckName(const std::string& name, absl::string_view field) {
  if (!name.empty()) return absl::OkStatus();
  return InvalidArgumentError(StrCat(field, " is empty; accepted: a name"));
}

absl::StatusOr<std::vector<std::string>> TakeNames(
    google::protobuf::RepeatedPtrField<std::string>* names,
    absl::string_view field) {
  std::vector<std::string> plain;
  for (int i = 0; i < names->size(); ++i) {
    RETURN_IF_ERROR(CheckName(names->Get(i), StrCat(field, "[", i, "]")));
    plain.push_back(std::move(*names->Mutable(i)));
  }
  return plain;
}

std::vector<int64_t> ToIndices(
    const google::protobuf::RepeatedField<uint32_t>& values) {
  return {values.begin(), values.end()};
}

absl::StatusOr<engine::Prompts> TakePrompts(v1::Prompts* prompts,
                                            bool accept_empty) {
  const int count = prompts->prompts_size();
  if (count == 0) {
    return InvalidArgumentError(
        "prompts is empty; accepted: at least one prompt");
  }
  if (count > kMaxPrompts) {
    return absl::ResourceExhaustedError(
        StrCat("prompts has ", count, " entries; accepted: at most ",
               kMaxPrompts, "; send several requests"));
  }
  engine::Prompts plain;
  plain.prompts.reserve(count);
  bool any_text = false;
  for (int i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(engine::Prompt prompt,
                     TakePrompt(prompts->mutable_prompts(i), i, accept_empty));
    any_text |= prompt.is_text;
    plain.prompts.push_back(std::move(prompt));
  }
  if (prompts->has_prepend_bos()) {
    if (!any_text) {
      return InvalidArgumentError(StrCat(
          "prompts.prepend_bos is ", prompts->prepend_bos() ? "true" : "false",
          " but every prompt is token ids, which are used as they are; "
          "accepted: leave it unset"));
    }
    plain.prepend_bos = prompts->prepend_bos();
  }
  return plain;
}

absl::StatusOr<engine::Positions> ToPositions(const v1::Positions& positions,
                                              size_t prompts) {
  engine::Positions plain;
  const auto add = [&plain](const v1::Positions::List& list) {
    plain.lists.emplace_back(list.values().begin(), list.values().end());
  };
  switch (positions.selection_case()) {
    case v1::Positions::kEveryPrompt:
      if (positions.every_prompt().values().empty()) {
        return InvalidArgumentError(
            "positions.every_prompt.values is empty; accepted: at least one "
            "position, or positions unset for all");
      }
      plain.kind = engine::Positions::Kind::kEveryPrompt;
      add(positions.every_prompt());
      break;
    case v1::Positions::kPerPrompt: {
      const int lists = positions.per_prompt().lists_size();
      if (static_cast<size_t>(lists) != prompts) {
        return InvalidArgumentError(StrCat("positions.per_prompt has ", lists,
                                           " lists; accepted: ", prompts,
                                           ", one per prompt"));
      }
      plain.kind = engine::Positions::Kind::kPerPrompt;
      for (const auto& list : positions.per_prompt().lists()) add(list);
      break;
    }
    case v1::Positions::SELECTION_NOT_SET:
      break;
  }
  return plain;
}

absl::StatusOr<std::optional<model::Processing>> ProcessingFromProto(
    v1::Processing processing, absl::string_view field) {
  switch (processing) {
    case v1::PROCESSING_UNSPECIFIED:
      return std::optional<model::Processing>();
    case v1::RAW:
      return std::optional(model::Processing::kRaw);
    case v1::FOLDED:
      return std::optional(model::Processing::kFolded);
    default:
      return InvalidArgumentError(StrCat(field, " is ",
                                         static_cast<int>(processing),
                                         "; accepted: RAW, FOLDED or unset"));
  }
}

absl::StatusOr<engine::Array> TakeInputs(v1::Tensor* inputs) {
  ASSIGN_OR_RETURN(engine::Array array,
                   TakeArray(inputs, "inputs", storage::DType::kFloat32, 2));
  if (array.shape[0] == 0 || array.shape[1] == 0) {
    return InvalidArgumentError(StrCat("inputs.shape is [", array.shape[0],
                                       ", ", array.shape[1],
                                       "]; accepted: at least one row"));
  }
  RETURN_IF_ERROR(CheckFinite(array, "inputs"));
  return array;
}

absl::Status RefusePositions(bool has_positions, absl::string_view source) {
  if (!has_positions) return absl::OkStatus();
  return InvalidArgumentError(StrCat("positions is set beside ", source,
                                     ", whose rows are used as they are; "
                                     "accepted: positions with prompts only"));
}

}  // namespace cupola::service
