#include "server/model/model.h"

#include <algorithm>
#include <utility>

#include "ATen/core/LegacyTypeDispatch.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "server/model/checkpoint.h"
#include "server/model/eos_tokens.h"
#include "server/model/forward.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"
#include "server/model/weights.h"

namespace cupola::model {
namespace {

constexpr int64_t kMaxConfigBytes = 8 << 20;

}  // namespace

absl::StatusOr<std::shared_ptr<const ModelSource>> ModelSource::Open(
    const std::string& folder) {
  return CatchTorch(
      absl::StrCat("opening ", folder),
      [&]() -> absl::StatusOr<std::shared_ptr<const ModelSource>> {
        std::shared_ptr<ModelSource> source(new ModelSource);
        const std::string config_path = absl::StrCat(folder, "/config.json");
        ASSIGN_OR_RETURN(const Json json,
                         ReadJsonFile(config_path, kMaxConfigBytes));
        auto config = ParseModelConfig(json);
        if (!config.ok()) {
          return absl::Status(
              config.status().code(),
              absl::StrCat(config_path, ": ", config.status().message()));
        }
        source->config_ = *std::move(config);
        source->eos_token_ids_ = ReadEosTokens(folder, json, source->config_);
        ASSIGN_OR_RETURN(source->tokenizer_, Tokenizer::Load(folder));
        ASSIGN_OR_RETURN(source->tensors_, SafetensorsSet::OpenFolder(folder));
        ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                         Checkpoint::Open(source->config_, source->tensors_));
        source->parameters_ = checkpoint.parameters();
        ASSIGN_OR_RETURN(const storage::Digest tensors,
                         source->tensors_->ContentDigest());
        storage::Hasher hasher("model/1");
        hasher.AddDigest(tensors)
            .AddBytes(source->tokenizer_->fingerprint())
            .AddBytes(source->config_.fingerprint);
        source->digest_ = hasher.Finish();
        return std::shared_ptr<const ModelSource>(std::move(source));
      });
}

int64_t ModelSource::WeightBytes(at::ScalarType dtype) const {
  return parameters_ * static_cast<int64_t>(c10::elementSize(dtype));
}

TokenBatch TokenBatch::Pack(
    const std::vector<const std::vector<int32_t>*>& rows) {
  TokenBatch batch;
  int64_t longest = 0;
  for (const std::vector<int32_t>* row : rows) {
    batch.lengths.push_back(static_cast<int64_t>(row->size()));
    longest = std::max(longest, batch.lengths.back());
  }
  batch.tokens =
      at::zeros({static_cast<int64_t>(rows.size()), longest}, at::kLong);
  int64_t* to = batch.tokens.mutable_data_ptr<int64_t>();
  for (const std::vector<int32_t>* row : rows) {
    std::copy(row->begin(), row->end(), to);
    to += longest;
  }
  return batch;
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(
    std::shared_ptr<const ModelSource> source, const Options& options) {
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16) {
    return absl::InvalidArgumentError(
        absl::StrCat("a model computes in float32 or bfloat16, not ",
                     c10::toString(options.dtype)));
  }
  return CatchTorch(
      absl::StrCat("loading a ", source->config().family, " model"),
      [&]() -> absl::StatusOr<std::shared_ptr<const Model>> {
        ASSIGN_OR_RETURN(
            const Checkpoint checkpoint,
            Checkpoint::Open(source->config(), source->shared_tensors()));
        std::shared_ptr<Model> model(new Model);
        ASSIGN_OR_RETURN(
            model->weights_,
            LoadWeights(source->config(), checkpoint, options.processing,
                        options.dtype, options.device));
        model->source_ = std::move(source);
        model->options_ = options;
        return std::shared_ptr<const Model>(std::move(model));
      });
}

Model::~Model() = default;

absl::StatusOr<ForwardResult> Model::Forward(
    const ForwardRequest& request) const {
  return CatchTorch("forward pass", [&]() -> absl::StatusOr<ForwardResult> {
    RETURN_IF_ERROR(ValidateForward(config(), request));
    const c10::NoGradGuard no_grad;
    // Nothing here records gradients, so every operation may skip that layer.
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return RunForward(config(), *weights_, request);
  });
}

absl::StatusOr<at::Tensor> Model::Unembed(const at::Tensor& rows) const {
  return CatchTorch("unembedding", [&]() -> absl::StatusOr<at::Tensor> {
    const c10::NoGradGuard no_grad;
    at::Tensor logits = weights_->unembedding(rows, /*edited=*/true);
    if (config().logit_softcap > 0) {
      logits.div_(config().logit_softcap).tanh_().mul_(config().logit_softcap);
    }
    return logits;
  });
}

int64_t Model::resident_bytes() const { return weights_->resident_bytes(); }

}  // namespace cupola::model
