#include "server/dictionary/dictionary.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/dictionary/activation.h"
#include "server/dictionary/decoder.h"
#include "server/dictionary/encoder.h"
#include "server/dictionary/latent_columns.h"
#include "server/dictionary/matching_pursuit.h"
#include "server/dictionary/normalization.h"
#include "server/dictionary/selection.h"
#include "server/dictionary/weights.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::dictionary {
namespace {

// The first row that holds a NaN or an infinity, or -1.
int64_t FirstNonFiniteRow(const at::Tensor& x) {
  if (x.device().is_cpu()) {
    const int64_t at = FirstNonFinite(x.const_data_ptr<float>(), x.numel());
    return at == x.numel() ? -1 : at / x.size(1);
  }
  const at::Tensor finite = at::isfinite(x).all(1);
  if (finite.all().item<bool>()) return -1;
  return finite.logical_not().nonzero().select(0, 0).item<int64_t>();
}

}  // namespace

struct Dictionary::Loaded {
  explicit Loaded(Weights w)
      : weights(std::move(w)), columns(&weights.encoder) {}
  const Weights weights;
  const LatentColumns columns;
};

Dictionary::~Dictionary() = default;

absl::StatusOr<std::shared_ptr<const Dictionary>> Dictionary::Load(
    std::shared_ptr<const DictionarySource> source, Half half,
    at::Device device) {
  return model::CatchTorch(
      "loading a dictionary",
      [&]() -> absl::StatusOr<std::shared_ptr<const Dictionary>> {
        if (half == Half::kOut && source->manifest().kind != Kind::kPair) {
          return absl::InvalidArgumentError(
              "only a pair has an output dictionary");
        }
        ASSIGN_OR_RETURN(HostWeights host, ReadWeights(*source, half));
        return LoadFrom(std::move(host), std::move(source), half, device);
      });
}

absl::StatusOr<std::shared_ptr<const Dictionary>> Dictionary::LoadFrom(
    HostWeights host, std::shared_ptr<const DictionarySource> source, Half half,
    at::Device device) {
  return model::CatchTorch(
      "loading a dictionary",
      [&]() -> absl::StatusOr<std::shared_ptr<const Dictionary>> {
        std::shared_ptr<Dictionary> dictionary(new Dictionary);
        dictionary->loaded_ = std::make_unique<Loaded>(
            PlaceWeights(std::move(host), source->manifest(), device));
        dictionary->source_ = std::move(source);
        dictionary->half_ = half;
        dictionary->device_ = device;
        return dictionary;
      });
}

absl::Status Dictionary::CheckInput(const at::Tensor& x) const {
  if (!x.defined() || x.dim() != 2 || x.size(1) != d_in()) {
    return absl::InvalidArgumentError(
        absl::StrCat("input: rows of ", d_in(), " values are accepted, not ",
                     x.defined() ? c10::str(x.sizes()) : "nothing"));
  }
  if (!x.is_floating_point() || x.device().type() != device_.type()) {
    return absl::InvalidArgumentError(
        absl::StrCat("input: floating-point numbers on ", device_.str(),
                     " are accepted, not ", at::toString(x.scalar_type()),
                     " on ", x.device().str()));
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Dictionary::EncoderInput(const at::Tensor& x) const {
  RETURN_IF_ERROR(CheckInput(x));
  at::Tensor input = NormalizeInput(manifest().normalize, x.to(at::kFloat));
  const Weights& w = loaded_->weights;
  if (w.b_in.defined()) input = input - w.b_in;
  input = input.contiguous();
  const int64_t bad = FirstNonFiniteRow(input);
  if (bad >= 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "input row ", bad, " holds values that are not finite, or cannot be ",
        "normalised (", NormalizeName(manifest().normalize), ")"));
  }
  return input;
}

absl::StatusOr<SparseRows> Dictionary::Encode(
    const at::Tensor& x, const EncodeOptions& options) const {
  return model::CatchTorch("encoding", [&]() -> absl::StatusOr<SparseRows> {
    RETURN_IF_ERROR(CheckOptions(options, d_sae()));
    ASSIGN_OR_RETURN(const at::Tensor input, EncoderInput(x));
    const Weights& w = loaded_->weights;
    const Architecture architecture = manifest().architecture;
    at::Tensor latents;
    if (!options.latents.empty()) {
      latents = at::tensor(options.latents, at::kInt).to(device_, at::kLong);
    }
    if (architecture == Architecture::kMatchingPursuit) {
      at::Tensor acts = EncodeMatchingPursuit(manifest(), w, input);
      if (latents.defined()) acts = acts.index_select(1, latents);
      return ToSparse(acts, latents, d_sae(), options);
    }
    if (latents.defined() && architecture != Architecture::kTopK &&
        loaded_->columns.Serves(options.latents.size())) {
      const at::Tensor acts =
          EncodeColumns(manifest(), w, input,
                        loaded_->columns.Gather(options.latents), latents);
      return ToSparse(acts, latents, d_sae(), options);
    }
    return EncodeSparse(manifest(), w, input, options);
  });
}

absl::StatusOr<at::Tensor> Dictionary::EncodeDense(const at::Tensor& x) const {
  return model::CatchTorch("encoding", [&]() -> absl::StatusOr<at::Tensor> {
    ASSIGN_OR_RETURN(const at::Tensor input, EncoderInput(x));
    const Weights& w = loaded_->weights;
    if (manifest().architecture == Architecture::kMatchingPursuit) {
      return EncodeMatchingPursuit(manifest(), w, input);
    }
    return EncodeAll(manifest(), w, input);
  });
}

bool Dictionary::DecodeNeedsInput() const {
  const Manifest& m = manifest();
  return m.skip ||
         (m.kind != Kind::kTranscoder && DenormalizeNeedsInput(m.normalize));
}

absl::StatusOr<at::Tensor> Dictionary::Decode(const SparseRows& features,
                                              const at::Tensor& x) const {
  return model::CatchTorch("decoding", [&]() -> absl::StatusOr<at::Tensor> {
    RETURN_IF_ERROR(CheckRows(features, d_sae()));
    const Weights& w = loaded_->weights;
    if (!DecodeNeedsInput()) return DecodeSparse(features, w.W_dec, w.b_dec);
    if (!x.defined()) {
      return absl::InvalidArgumentError(
          absl::StrCat("decoding needs the input: architecture ",
                       manifest().architecture_name, ", normalisation ",
                       NormalizeName(manifest().normalize)));
    }
    RETURN_IF_ERROR(CheckInput(x));
    if (x.size(0) != features.indptr.numel() - 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("decoding: ", features.indptr.numel() - 1,
                       " rows of features and ", x.size(0), " of input"));
    }
    const at::Tensor input = x.to(at::kFloat);
    at::Tensor out = DecodeSparse(features, w.W_dec, w.b_dec);
    if (manifest().kind != Kind::kTranscoder) {
      out = DenormalizeOutput(manifest().normalize, input, out);
    }
    if (w.skip.defined()) out = out + w.skip(input);
    return out;
  });
}

int64_t Dictionary::resident_bytes() const {
  return loaded_->weights.Bytes() + loaded_->columns.Bytes();
}

const Weights& Dictionary::weights() const { return loaded_->weights; }

}  // namespace cupola::dictionary
