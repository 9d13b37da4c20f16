#include "server/analysis/attention_attribution.h"

#include <utility>

#include "ATen/ATen.h"
#include "server/analysis/encoder_directions.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using enum model::HookKind;

}  // namespace

AttentionAttributionAnalysis::AttentionAttributionAnalysis(
    std::shared_ptr<const dictionary::Dictionary> dictionary, int layer,
    std::vector<int64_t> latents)
    : dictionary_(std::move(dictionary)),
      layer_(layer),
      latents_(std::move(latents)) {}

storage::Digest AttentionAttributionAnalysis::Identity(
    const storage::Digest& dictionary, dictionary::Half half,
    const std::vector<int64_t>& latents) {
  return storage::Hasher("attention-attribution/1")
      .AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .AddInts(latents.data(), latents.size())
      .Finish();
}

std::set<model::HookPoint> AttentionAttributionAnalysis::captures() const {
  return {{kV, layer_}, {kPattern, layer_}, {kZ, layer_}};
}

absl::StatusOr<std::vector<std::vector<storage::Array>>>
AttentionAttributionAnalysis::Run(const Pass& pass,
                                  const std::vector<Placed>& sequences) const {
  const model::ModelConfig& config = pass.model->config();
  const EncoderDirections directions =
      EncoderDirectionsOf(*dictionary_, latents_);
  const int64_t group = config.n_heads / config.n_kv_heads;
  // [heads, d_head, n]
  const at::Tensor by_head =
      directions.rows.t().unflatten(0, {config.n_heads, config.d_head});
  const auto of = [&](model::HookKind kind, const Placed& placed) {
    return pass.forward->captures.at({kind, layer_})
        .select(0, placed.row)
        .to(at::kFloat);
  };
  std::vector<std::vector<storage::Array>> records;
  for (const Placed& placed : sequences) {
    RETURN_IF_ERROR(pass.poll());
    const int64_t length = placed.sequence->tokens.size();
    const at::Tensor rows =
        at::tensor(placed.sequence->positions, at::kLong).to(by_head.device());
    const at::Tensor values =
        of(kV, placed).narrow(0, 0, length).repeat_interleave(group, 1);
    // [tokens, heads, n]
    const at::Tensor projected = at::einsum("she,hen->shn", {values, by_head});
    // [tokens, rows, heads]
    const at::Tensor pattern = of(kPattern, placed)
                                   .narrow(2, 0, length)
                                   .index_select(1, rows)
                                   .permute({2, 1, 0});
    const at::Tensor shares = at::bmm(pattern, projected).transpose(0, 1);
    const at::Tensor z = of(kZ, placed).index_select(0, rows).flatten(1);
    const at::Tensor total = at::mm(z, directions.rows.t());
    const auto floats = [](const at::Tensor& tensor) {
      return ToArray(tensor, storage::DType::kFloat32);
    };
    records.push_back({floats(shares), floats(total), floats(directions.bias)});
  }
  return records;
}

}  // namespace cupola::analysis
