#include "server/dictionary/weights.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "server/model/status_macros.h"

namespace cupola::dictionary {
namespace {

// Rows of W_dec shorter than this count as this long when they are divided by
// their length: a dead latent must not become NaN.
constexpr double kMinimumNorm = 1e-8;

// Reads one dictionary's tensors in float32 on the CPU, with the foldings of
// weights.h.
class Loader {
 public:
  Loader(const DictionarySource& source, Half half)
      : source_(source), manifest_(source.manifest()), half_(half) {}

  absl::Status Prepare();
  absl::StatusOr<at::Tensor> Encoder() const;  // [d_in, d_sae]
  absl::StatusOr<at::Tensor> Decoder() const;  // [d_sae, d_out]
  // b_dec divided by the input's factor.
  absl::StatusOr<at::Tensor> DecoderBias() const;
  // A vector over latents; with `folds`, times the decoder's norms.
  absl::StatusOr<at::Tensor> PerLatent(const char* name, bool folds) const;
  double factor() const { return factor_; }

 private:
  absl::StatusOr<at::Tensor> Read(const char* name) const {
    return ReadFinite(source_.tensors(), source_.TensorName(name, half_));
  }
  absl::Status PrepareScalingFactor();

  const DictionarySource& source_;
  const Manifest& manifest_;
  const Half half_;
  double factor_ = 1;           // of expected_average_only_in
  at::Tensor encoder_scale_;    // [d_sae] or undefined
  at::Tensor decoder_divisor_;  // [d_sae] or undefined
  at::Tensor decoder_scale_;    // [d_sae] or undefined
};

absl::Status Loader::PrepareScalingFactor() {
  if (manifest_.kind == Kind::kPair ||
      !source_.tensors().Has("scaling_factor")) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const at::Tensor scale, Read("scaling_factor"));
  if (at::allclose(scale, at::ones_like(scale))) return absl::OkStatus();
  if (!manifest_.finetuning_scaling_factor) {
    return absl::InvalidArgumentError(
        "tensor scaling_factor is not all ones but finetuning_scaling_factor "
        "is false in cfg.json: true is accepted");
  }
  decoder_scale_ = scale;
  return absl::OkStatus();
}

absl::Status Loader::Prepare() {
  if (manifest_.norm_scaling_factor > 0) {
    factor_ = manifest_.norm_scaling_factor;
  }
  RETURN_IF_ERROR(PrepareScalingFactor());
  const bool rescale = manifest_.rescale_acts_by_decoder_norm;
  if (!rescale && !manifest_.fold_w_dec_norm) return absl::OkStatus();
  ASSIGN_OR_RETURN(const at::Tensor W_dec, Read("W_dec"));
  const at::Tensor norms = at::linalg_vector_norm(W_dec, 2, {-1}) / factor_;
  decoder_divisor_ = norms.clamp_min(kMinimumNorm);
  encoder_scale_ = rescale ? norms : decoder_divisor_;
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Loader::Encoder() const {
  ASSIGN_OR_RETURN(at::Tensor W_enc, Read("W_enc"));
  if (factor_ != 1) W_enc.mul_(factor_);
  if (encoder_scale_.defined()) W_enc.mul_(encoder_scale_);
  return W_enc;
}

absl::StatusOr<at::Tensor> Loader::Decoder() const {
  ASSIGN_OR_RETURN(at::Tensor W_dec, Read("W_dec"));
  // Tied weights: what the encoder gains the decoder loses, so they stay as
  // they are and activations come out in the unscaled input's units.
  const bool tied = manifest_.architecture == Architecture::kMatchingPursuit;
  if (factor_ != 1 && !tied) W_dec.div_(factor_);
  if (decoder_divisor_.defined()) W_dec.div_(decoder_divisor_.unsqueeze(1));
  if (decoder_scale_.defined()) W_dec.mul_(decoder_scale_.unsqueeze(1));
  return W_dec;
}

absl::StatusOr<at::Tensor> Loader::DecoderBias() const {
  ASSIGN_OR_RETURN(at::Tensor b_dec, Read("b_dec"));
  if (factor_ != 1) b_dec.div_(factor_);
  return b_dec;
}

absl::StatusOr<at::Tensor> Loader::PerLatent(const char* name,
                                             bool folds) const {
  ASSIGN_OR_RETURN(at::Tensor vector, Read(name));
  if (folds && encoder_scale_.defined()) vector.mul_(encoder_scale_);
  return vector;
}

absl::Status ReadEncoder(const Loader& loader, const Manifest& manifest,
                         HostWeights* host) {
  if (manifest.architecture == Architecture::kGated) {
    ASSIGN_OR_RETURN(host->b_gate, loader.PerLatent("b_gate", true));
    ASSIGN_OR_RETURN(host->b_mag, loader.PerLatent("b_mag", true));
    ASSIGN_OR_RETURN(at::Tensor r_mag, loader.PerLatent("r_mag", false));
    host->mag_scale = r_mag.exp_();
  } else {
    ASSIGN_OR_RETURN(host->b_enc, loader.PerLatent("b_enc", true));
  }
  if (manifest.architecture == Architecture::kJumpRelu) {
    ASSIGN_OR_RETURN(host->threshold, loader.PerLatent("threshold", true));
  }
  ASSIGN_OR_RETURN(at::Tensor W_enc, loader.Encoder());
  // Transposed here, so that the original is gone before the packing.
  host->W_enc = W_enc.t().to(manifest.dtype).contiguous();
  return absl::OkStatus();
}

// Every tensor that may be there.
template <typename Host, typename Visit>
void ForEachTensor(Host& host, Visit visit) {
  for (auto* t :
       {&host.W_enc, &host.b_enc, &host.W_dec, &host.b_dec, &host.threshold,
        &host.b_gate, &host.b_mag, &host.mag_scale, &host.W_skip}) {
    if (t->defined()) visit(*t);
  }
}

at::Tensor To(const at::Tensor& tensor, at::Device device) {
  // Of page-locked memory a copy need not be waited for: what uses it comes
  // later on the same stream, and the memory stays as long as the tensor.
  return tensor.defined() ? tensor.to(device, /*non_blocking=*/true) : tensor;
}

}  // namespace

int64_t HostWeights::Bytes() const {
  int64_t bytes = 0;
  ForEachTensor(*this, [&bytes](const at::Tensor& tensor) {
    bytes += static_cast<int64_t>(tensor.nbytes());
  });
  return bytes;
}

HostWeights HostWeights::Pinned() const {
  HostWeights pinned = *this;
  ForEachTensor(pinned,
                [](at::Tensor& tensor) { tensor = tensor.pin_memory(); });
  return pinned;
}

absl::StatusOr<HostWeights> ReadWeights(const DictionarySource& source,
                                        Half half) {
  const Manifest& manifest = source.manifest();
  const bool pursuit = manifest.architecture == Architecture::kMatchingPursuit;
  Loader loader(source, half);
  RETURN_IF_ERROR(loader.Prepare());

  HostWeights host;
  if (!pursuit) RETURN_IF_ERROR(ReadEncoder(loader, manifest, &host));
  ASSIGN_OR_RETURN(at::Tensor W_dec, loader.Decoder());
  host.W_dec = W_dec.to(manifest.dtype).contiguous();
  if (pursuit) {
    host.residual_threshold = manifest.residual_threshold / loader.factor();
  }
  ASSIGN_OR_RETURN(host.b_dec, loader.DecoderBias());
  if (manifest.skip) {
    ASSIGN_OR_RETURN(
        host.W_skip,
        ReadFinite(source.tensors(), source.TensorName("W_skip", half)));
  }
  return host;
}

Weights PlaceWeights(HostWeights host, const Manifest& manifest,
                     at::Device device) {
  Weights weights;
  weights.threshold = To(host.threshold, device);
  weights.b_gate = To(host.b_gate, device);
  weights.b_mag = To(host.b_mag, device);
  weights.mag_scale = To(host.mag_scale, device);
  const bool pursuit = manifest.architecture == Architecture::kMatchingPursuit;
  if (!pursuit) {
    weights.encoder =
        model::Linear::Create(host.W_enc.t(), host.b_enc, manifest.dtype,
                              device, model::Precision::kReduced);
    host.W_enc.reset();
    if (manifest.architecture == Architecture::kTopK &&
        weights.encoder.split() != nullptr) {
      weights.screen = EncoderScreen(*weights.encoder.split(),
                                     weights.encoder.bias(), manifest.k);
    }
  }
  weights.W_dec = To(host.W_dec, device);
  if (pursuit) {
    weights.encoder = model::Linear::Shared(weights.W_dec, {});
    weights.residual_threshold = host.residual_threshold;
  }
  const at::Tensor b_dec = To(host.b_dec, device);
  if (manifest.apply_b_dec_to_input) weights.b_in = b_dec;
  // Matching pursuit adds b_dec only where it was subtracted.
  if (!pursuit || manifest.apply_b_dec_to_input) weights.b_dec = b_dec;
  if (manifest.skip) {
    weights.skip =
        model::Linear::Create(host.W_skip.t(), {}, at::kFloat, device);
  }
  return weights;
}

int64_t Weights::Bytes() const {
  int64_t bytes =
      encoder.resident_bytes() + skip.resident_bytes() + screen.bytes();
  for (const at::Tensor* t :
       {&W_dec, &b_dec, &threshold, &b_gate, &b_mag, &mag_scale}) {
    if (t->defined()) bytes += static_cast<int64_t>(t->nbytes());
  }
  return bytes;  // b_in is b_dec
}

}  // namespace cupola::dictionary
