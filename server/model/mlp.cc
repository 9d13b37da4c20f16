#include "server/model/mlp.h"

#include "server/model/status_macros.h"

namespace cupola::model {

at::Tensor Activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kGelu:
      return at::gelu(x, "none");
    case Activation::kGeluNew:
    case Activation::kGeluFast:  // the same formula, its constants rounded
      return at::gelu(x, "tanh");
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kRelu:
      return at::relu(x);
  }
  return x;
}

absl::Status RunMlp(const ModelConfig& config, const Block& block,
                    const at::Tensor& x, Pass* pass, at::Tensor* out) {
  const at::Tensor both = block.mlp_in(x);
  at::Tensor pre = config.gated_mlp ? both.narrow(-1, 0, config.d_mlp) : both;
  RETURN_IF_ERROR(pass->Visit(HookKind::kMlpPre, &pre));
  if (!pass->Needs(HookKind::kMlpPreLinear)) return absl::OkStatus();
  at::Tensor post;
  if (config.gated_mlp) {
    at::Tensor linear = both.narrow(-1, config.d_mlp, config.d_mlp);
    RETURN_IF_ERROR(pass->Visit(HookKind::kMlpPreLinear, &linear));
    if (!pass->Needs(HookKind::kMlpPost)) return absl::OkStatus();
    post = Activate(config.activation, pre).mul_(linear);
  } else {
    post = Activate(config.activation, pre);
  }
  RETURN_IF_ERROR(pass->Visit(HookKind::kMlpPost, &post));
  if (!pass->Needs(HookKind::kLn2PostScale)) return absl::OkStatus();
  *out = block.mlp_out(post);
  return absl::OkStatus();
}

}  // namespace cupola::model
