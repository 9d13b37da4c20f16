#include "server/analysis/attention_attribution.h"

#include <algorithm>
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
    AttentionQuery query)
    : dictionary_(std::move(dictionary)),
      layer_(layer),
      query_(std::move(query)) {}

storage::Digest AttentionAttributionAnalysis::Identity(
    const storage::Digest& dictionary, dictionary::Half half,
    const AttentionQuery& query) {
  return storage::Hasher("attention-attribution/2")
      .AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .AddInts(query.latents.data(), query.latents.size())
      .AddInt(query.by_head)
      .AddInt(query.mean)
      .Finish();
}

std::set<model::HookPoint> AttentionAttributionAnalysis::captures() const {
  if (query_.by_head) return {{kZ, layer_}};
  return {{kV, layer_}, {kPattern, layer_}, {kZ, layer_}};
}

absl::StatusOr<std::vector<std::vector<storage::Array>>>
AttentionAttributionAnalysis::Run(const Pass& pass,
                                  const std::vector<Placed>& sequences) const {
  const model::ModelConfig& config = pass.model->config();
  const EncoderDirections directions =
      EncoderDirectionsOf(*dictionary_, query_.latents);
  const int64_t group = config.n_heads / config.n_kv_heads;
  // [heads, d_head, n]
  const at::Tensor by_head =
      directions.rows.t().unflatten(0, {config.n_heads, config.d_head});
  const auto of = [&](model::HookKind kind, const Placed& placed) {
    return pass.forward->captures.at({kind, layer_})
        .select(0, placed.row)
        .to(at::kFloat);
  };
  const auto sources = [&](const Placed& placed, const at::Tensor& rows) {
    const int64_t length = placed.sequence->tokens.size();
    const at::Tensor values =
        of(kV, placed).narrow(0, 0, length).repeat_interleave(group, 1);
    // [tokens, heads, n]
    const at::Tensor projected = at::einsum("she,hen->shn", {values, by_head});
    // [tokens, rows, heads]
    const at::Tensor pattern = of(kPattern, placed)
                                   .narrow(2, 0, length)
                                   .index_select(1, rows)
                                   .permute({2, 1, 0});
    return at::bmm(pattern, projected).transpose(0, 1);
  };
  std::vector<std::vector<storage::Array>> records;
  for (const Placed& placed : sequences) {
    RETURN_IF_ERROR(pass.poll());
    const at::Tensor rows =
        at::tensor(placed.sequence->positions, at::kLong).to(by_head.device());
    const at::Tensor z = of(kZ, placed).index_select(0, rows).flatten(1);
    at::Tensor shares, total = at::mm(z, directions.rows.t());
    if (query_.by_head) {
      shares = at::einsum(
          "rhe,hen->rhn",
          {z.unflatten(1, {config.n_heads, config.d_head}), by_head});
    } else {
      shares = sources(placed, rows);
    }
    if (query_.mean) {
      const double count = std::max<int64_t>(1, rows.size(0));
      shares = shares.sum(0, /*keepdim=*/true, at::kDouble) / count;
      total = total.sum(0, /*keepdim=*/true, at::kDouble) / count;
    }
    const auto floats = [](const at::Tensor& tensor) {
      return ToArray(tensor, storage::DType::kFloat32);
    };
    records.push_back({floats(shares), floats(total), floats(directions.bias)});
  }
  return records;
}

}  // namespace cupola::analysis
