#include "server/analysis/sandwich.h"

#include "server/analysis/gathered_blocks.h"
#include "server/dictionary/normalization.h"
#include "server/model/activation_derivative.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using dictionary::Dictionary;

// Gated: the parts that came through the gate and the linear half, summed.
at::Tensor SumHalves(const at::Tensor& x, bool gated) {
  if (!gated) return x;
  const int64_t half = x.size(-1) / 2;
  return x.narrow(-1, 0, half) + x.narrow(-1, half, half);
}

at::Tensor Gathered(const at::Tensor& rows, const at::Tensor& latents) {
  return rows.index_select(0, latents.reshape({-1}))
      .view({latents.size(0), latents.size(1), rows.size(1)});
}

at::Tensor Product(const at::Tensor& out, const at::Tensor& in) {
  return at::bmm(out, in.transpose(1, 2));
}

// The decoder's rows at x: [n, k_in, d].
at::Tensor Decoded(const MlpBridge& bridge, const Sandwich& s) {
  const at::Tensor rows = Gathered(bridge.decoder().rows, s.in.safe());
  return s.decode_scale.defined() ? rows * s.decode_scale.unsqueeze(-1) : rows;
}

// The encoder's columns at y: [n, k_out, d].
at::Tensor Encoded(const MlpBridge& bridge, const Sandwich& s) {
  const at::Tensor rows = Gathered(bridge.encoder().rows, s.out.safe());
  if (!s.encode_norm.has_value()) return rows;
  return Apply(Transposed(s.encode_norm->derivative()), rows);
}

// [n, k_out, hidden]
at::Tensor EncodedHidden(const MlpBridge& bridge, const Sandwich& s) {
  return bridge.encoder().Gather(s.out.safe(), Transposed(s.after));
}

at::Tensor Masked(at::Tensor block, const Sandwich& s) {
  return block.mul_(s.out.valid().unsqueeze(2)).mul_(s.in.valid().unsqueeze(1));
}

// What the maps around the MLP multiply a token's block by; undefined: 1.
at::Tensor ScaleOf(const Sandwich& s) {
  if (!s.before.scale.defined()) return s.after.scale;
  return s.after.scale.defined() ? s.before.scale * s.after.scale
                                 : s.before.scale;
}

// Whether kept products and a scale per token make up the whole block.
bool ServesGathered(const MlpBridge& bridge, const Sandwich& s) {
  return bridge.decoder().products.defined() &&
         bridge.encoder().products.defined() && !bridge.place().identity &&
         !s.before.to.defined() && !s.after.to.defined() &&
         s.point.gradients.is_cpu();
}

}  // namespace

at::Tensor DecodeScale(const Dictionary& in, const at::Tensor& read) {
  const dictionary::Normalize normalize = in.manifest().normalize;
  if (in.manifest().kind == dictionary::Kind::kTranscoder ||
      !dictionary::DenormalizeNeedsInput(normalize)) {
    return {};
  }
  // Denormalising is affine: what it makes of 1 less what it makes of 0.
  const at::Tensor zero = at::zeros({read.size(0), 1}, read.options());
  return dictionary::DenormalizeOutput(normalize, read, zero + 1) -
         dictionary::DenormalizeOutput(normalize, read, zero);
}

Sandwich Sandwich::Select(const at::Tensor& tokens) const {
  const auto part = [&tokens](const at::Tensor& x) {
    return x.defined() ? x.index_select(0, tokens) : x;
  };
  return {{part(in.indices), part(in.values)},
          {part(out.indices), part(out.values)},
          point.Select(tokens),
          part(decode_scale),
          encode_norm.has_value()
              ? std::make_optional(encode_norm->Select(tokens))
              : std::nullopt,
          before.Select(tokens),
          after.Select(tokens)};
}

absl::StatusOr<Sandwich> MakeSandwich(
    const MlpBridge& bridge, const model::Model* model, const Dictionary& in,
    const Dictionary& out, const at::Tensor& read, const at::Tensor& x,
    MlpInput mlp_input, LatentMask mask,
    const std::function<absl::Status()>& poll) {
  Sandwich s;
  const at::Tensor wide = read.to(at::kFloat);
  ASSIGN_OR_RETURN(s.in, FindActive(in, wide, mask));
  RETURN_IF_ERROR(poll());
  at::Tensor at = x;
  if (mlp_input == MlpInput::kReconstruction) {
    ASSIGN_OR_RETURN(at, in.Decode(s.in.ToSparse(in.d_sae()), wide));
  }
  s.point = bridge.Evaluate(model, at.to(at::kFloat));
  RETURN_IF_ERROR(poll());
  ASSIGN_OR_RETURN(s.out, FindActive(out, s.point.y, mask));
  s.decode_scale = DecodeScale(in, wide);
  s.before = Compose({{}, s.decode_scale, {}, {}}, s.point.in);
  s.after = s.point.out;
  if (Normalisation::Normalises(out.manifest().normalize)) {
    s.encode_norm.emplace(out.manifest().normalize, s.point.y);
    s.after = Compose(s.after, s.encode_norm->derivative());
  }
  return s;
}

at::Tensor JacobianBlock(const MlpBridge& bridge, const Sandwich& s) {
  if (ServesGathered(bridge, s)) {
    return GatheredBlocks(
        {bridge.encoder().products, bridge.decoder().products}, s.out.indices,
        s.in.indices, s.point.gradients, ScaleOf(s));
  }
  const at::Tensor z = bridge.decoder().Gather(s.in.safe(), s.before);
  const at::Tensor hidden =
      SumHalves(z * s.point.gradients.unsqueeze(1), bridge.gated());
  at::Tensor block = Product(EncodedHidden(bridge, s), hidden);
  if (bridge.place().identity) {
    block.add_(Product(Encoded(bridge, s), Decoded(bridge, s)));
  }
  return Masked(block, s);
}

at::Tensor SecondOrderBlock(const MlpBridge& bridge, const Sandwich& s) {
  const at::Tensor z = bridge.decoder().Gather(s.in.safe(), s.before);
  const at::Tensor g = s.point.gradients.unsqueeze(1);
  at::Tensor hidden2;  // d^2 hidden / d in_j^2: [n, k_in, hidden]
  if (bridge.gated()) {
    const int64_t half = z.size(-1) / 2;
    const auto jet = model::DifferentiateActivation(
        bridge.place().activation, s.point.pre.narrow(1, 0, half),
        /*second=*/true);
    const at::Tensor linear = s.point.pre.narrow(1, half, half);
    const at::Tensor zg = z.narrow(-1, 0, half), zl = z.narrow(-1, half, half);
    hidden2 = (jet.second * linear).unsqueeze(1) * zg * zg +
              2 * jet.first.unsqueeze(1) * zg * zl;
  } else {
    const auto jet = model::DifferentiateActivation(
        bridge.place().activation, s.point.pre, /*second=*/true);
    hidden2 = jet.second.unsqueeze(1) * z * z;
  }
  if (s.point.norm.has_value()) {
    const at::Tensor bent = s.point.norm->Curvature(Decoded(bridge, s));
    hidden2 = hidden2 + SumHalves(at::matmul(bent, bridge.decoder().folded) * g,
                                  bridge.gated());
  }
  at::Tensor block = Product(EncodedHidden(bridge, s), hidden2);
  if (!s.point.post_norm.has_value() && !s.encode_norm.has_value()) {
    return Masked(block, s);
  }
  // What the norms behind the MLP bend its first-order change.
  at::Tensor moved =
      at::matmul(SumHalves(z * g, bridge.gated()), bridge.W_out());
  at::Tensor bent = at::zeros_like(moved);
  if (s.point.post_norm.has_value()) {
    const at::Tensor& gain = bridge.post_gain();
    bent = s.point.post_norm->Curvature(moved);
    if (gain.defined()) bent = bent * gain;
    moved = Apply(s.point.out, moved);
  }
  if (bridge.place().identity) moved = moved + Decoded(bridge, s);
  if (s.encode_norm.has_value()) {
    bent = Apply(s.encode_norm->derivative(), bent) +
           s.encode_norm->Curvature(moved);
  }
  block.add_(Product(Gathered(bridge.encoder().rows, s.out.safe()), bent));
  return Masked(block, s);
}

at::Tensor JacobianRows(const MlpBridge& bridge, const Sandwich& s) {
  at::Tensor u = EncodedHidden(bridge, s);
  if (bridge.gated()) u = at::cat({u, u}, -1);
  u = u * s.point.gradients.unsqueeze(1);
  // Back to x's width first: fewer products than with W_dec W_in.
  at::Tensor back =
      Apply(Transposed(s.before), at::matmul(u, bridge.decoder().matrix.t()));
  if (bridge.place().identity) {
    at::Tensor direct = Encoded(bridge, s);
    if (s.decode_scale.defined()) {
      direct = direct * s.decode_scale.unsqueeze(-1);
    }
    back = back + direct;
  }
  back.mul_(s.out.valid().unsqueeze(2));
  return at::matmul(back, bridge.decoder().rows.t());
}

}  // namespace cupola::analysis
