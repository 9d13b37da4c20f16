#include "server/analysis/residual_writes.h"

#include "absl/strings/str_cat.h"
#include "server/model/weights.h"

namespace cupola::analysis {
namespace {

using enum model::HookKind;

// x W without the bias of `linear`.
at::Tensor Through(const model::Linear& linear, const model::Norm& post_norm,
                   const at::Tensor& x) {
  at::Tensor y = at::mm(x, linear.Weight().to(at::kFloat));
  if (post_norm.weight.defined()) y = y * post_norm.weight.to(at::kFloat);
  return y;
}

}  // namespace

absl::Status CheckWritesToResidual(const model::HookPoint& hook,
                                   absl::string_view field) {
  switch (hook.kind) {
    case kEmbed:
    case kPosEmbed:
    case kResidPre:
    case kResidMid:
    case kResidPost:
    case kAttnOut:
    case kMlpOut:
    case kMlpPost:
    case kZ:
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          field, ": ", model::HookName(hook),
          " is not a part of the residual stream; accepted: hook_resid_pre, "
          "hook_resid_mid, hook_resid_post, hook_attn_out, hook_mlp_out, "
          "mlp.hook_post, attn.hook_z and the embeddings"));
  }
}

at::Tensor ToResidual(const model::Model& model, const model::HookPoint& hook,
                      const at::Tensor& x) {
  if (hook.kind != kMlpPost && hook.kind != kZ) return x;
  const model::Block& block = model.weights().blocks[hook.layer];
  return hook.kind == kMlpPost
             ? Through(block.mlp_out, block.ln2_post, x)
             : Through(block.attention_out, block.ln1_post, x);
}

}  // namespace cupola::analysis
