#include "server/dictionary/hook_binding.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::dictionary {
namespace {

using model::HookKind;
using model::HookPoint;

absl::StatusOr<HookPoint> Parse(const char* key, const std::string& name,
                                const model::ModelConfig& config) {
  absl::StatusOr<HookPoint> hook = model::ParseHookPoint(name, config);
  if (!hook.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(key, ": ", hook.status().message()));
  }
  return hook;
}

// The point behind a norm's gain and bias. What follows ln{1,2}_post is the
// term that is added to the residual stream.
std::optional<HookKind> BehindGain(HookKind kind) {
  switch (kind) {
    case HookKind::kLn1Normalized:
      return HookKind::kLn1Out;
    case HookKind::kLn2Normalized:
      return HookKind::kLn2Out;
    case HookKind::kLn1PostNormalized:
      return HookKind::kAttnOut;
    case HookKind::kLn2PostNormalized:
      return HookKind::kMlpOut;
    case HookKind::kFinalNormalized:
      return HookKind::kFinalOut;
    default:
      return std::nullopt;
  }
}

bool IsBehindGain(HookKind kind) {
  return kind == HookKind::kLn1Out || kind == HookKind::kLn2Out ||
         kind == HookKind::kFinalOut;
}

absl::Status ApplyTap(std::optional<Tap> tap, HookBinding* binding) {
  const std::optional<HookKind> behind = BehindGain(binding->in.kind);
  if (IsBehindGain(binding->in.kind)) {
    if (tap == Tap::kPreAffine) {
      return absl::InvalidArgumentError(
          absl::StrCat("tap is PRE_AFFINE but hook_in is ", binding->in_name,
                       ", which is behind the norm's gain: POST_AFFINE or no "
                       "tap is accepted"));
    }
    binding->tap = Tap::kPostAffine;
    return absl::OkStatus();
  }
  if (tap != Tap::kPostAffine) return absl::OkStatus();
  if (!behind.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tap is POST_AFFINE but hook_in is ", binding->in_name,
                     ": it is accepted for a norm's hook_normalized"));
  }
  binding->tap = Tap::kPostAffine;
  binding->in.kind = *behind;
  return absl::OkStatus();
}

bool IsMlpInput(HookKind kind) {
  return kind == HookKind::kLn2Normalized || kind == HookKind::kLn2Out ||
         kind == HookKind::kMlpIn;
}

}  // namespace

absl::StatusOr<int64_t> HookWidth(const HookPoint& hook,
                                  const model::ModelConfig& config) {
  int64_t width = 1;
  for (int64_t size : model::HookShape(hook, config)) {
    if (size < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          model::HookName(hook),
          " grows with the sequence: a dictionary needs a fixed width"));
    }
    width *= size;
  }
  return width;
}

absl::StatusOr<HookBinding> BindHooks(Kind kind, const std::string& in_name,
                                      const std::string& out_name,
                                      std::optional<Tap> tap,
                                      const model::ModelConfig& config) {
  if (in_name.empty()) {
    return absl::InvalidArgumentError(
        "hook_name is missing in cfg.json: give hook_in in the catalog");
  }
  HookBinding binding;
  binding.in_name = in_name;
  binding.out_name = out_name;
  ASSIGN_OR_RETURN(binding.in, Parse("hook_in", in_name, config));
  if (!out_name.empty()) {
    ASSIGN_OR_RETURN(binding.out, Parse("hook_out", out_name, config));
  }
  switch (kind) {
    case Kind::kSae:
      if (!out_name.empty() && binding.out != binding.in) {
        return absl::InvalidArgumentError(absl::StrCat(
            "hook_out is ", out_name, " but an SAE's output stands for its ",
            "input, ", in_name, ": leave it out"));
      }
      break;
    case Kind::kTranscoder:
      if (out_name.empty()) {
        return absl::InvalidArgumentError(
            "hook_name_out is missing in cfg.json: a transcoder needs it; give "
            "hook_out in the catalog");
      }
      break;
    case Kind::kPair:
      if (!out_name.empty()) break;
      if (!IsMlpInput(binding.in.kind)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "hook_name is ", in_name,
            ": a pair reads an MLP's input "
            "(blocks.L.ln2.hook_normalized, blocks.L.mlp.hook_in); otherwise "
            "give hook_out in the catalog"));
      }
      binding.out = {HookKind::kMlpOut, binding.in.layer};
      binding.out_name = model::HookName(binding.out);
      break;
  }
  RETURN_IF_ERROR(ApplyTap(tap, &binding));
  if (kind == Kind::kSae) {
    binding.out = binding.in;
    binding.out_name = in_name;
  }
  return binding;
}

}  // namespace cupola::dictionary
