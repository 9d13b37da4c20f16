#include "server/model/forward.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/model/attention.h"
#include "server/model/continued_attention.h"
#include "server/model/mlp.h"
#include "server/model/pass.h"
#include "server/model/status_macros.h"

namespace cupola::model {
namespace {

using enum HookKind;

// The steps of a pass over a batch [batch, positions]. Residuals are
// [batch, positions, d_model].
class Forward {
 public:
  Forward(const ModelConfig& config, const Weights& weights,
          const ForwardRequest& request, ForwardResult* result)
      : config_(config),
        weights_(weights),
        request_(request),
        result_(result),
        pass_(config, request, result),
        attention_(config, weights, &pass_) {}

  absl::Status Run() {
    if (pass_.continuation() != nullptr) {
      pass_.set_positions(AbsolutePositions(
          *pass_.continuation(), request_.batch.tokens.size(1), config_.n_ctx,
          weights_.embedding.device()));
    } else if (pass_.growing() != nullptr) {
      pass_.set_positions(at::tensor(pass_.growing()->lengths(), at::kLong)
                              .unsqueeze(-1)
                              .to(weights_.embedding.device()));
    }
    at::Tensor residual = request_.start_residual;
    if (!residual.defined()) RETURN_IF_ERROR(Embed(&residual));
    for (int layer = request_.start_layer; layer <= config_.n_layers; ++layer) {
      if (request_.stop_at_layer == layer) result_->residual = residual;
      pass_.KeepResidual(layer, residual);
      if (request_.poll) RETURN_IF_ERROR(request_.poll());
      if (layer == config_.n_layers) break;
      pass_.EnterLayer(layer);
      if (!pass_.Needs(kResidPre)) return absl::OkStatus();
      RETURN_IF_ERROR(RunBlock(weights_.blocks[layer], &residual));
    }
    return Unembed(residual);
  }

 private:
  absl::Status Embed(at::Tensor* residual) {
    const at::Tensor tokens =
        request_.batch.tokens.to(weights_.embedding.device());
    at::Tensor embedded = weights_.Embed(tokens);
    RETURN_IF_ERROR(pass_.Visit(kEmbed, &embedded));
    *residual = embedded;
    if (!weights_.positions.defined()) return absl::OkStatus();
    at::Tensor positions =
        pass_.positions().defined()
            ? at::embedding(weights_.positions, pass_.positions())
            : weights_.positions.narrow(0, 0, tokens.size(1))
                  .expand_as(embedded);
    RETURN_IF_ERROR(pass_.Visit(kPosEmbed, &positions));
    *residual = embedded + positions;
    return absl::OkStatus();
  }

  // `addend` + `base`, in the addend's own memory where nobody else has it.
  at::Tensor Add(const at::Tensor& base, at::Tensor addend, HookKind hook) {
    if (pass_.Watches(hook)) return base + addend;
    return addend.add_(base);
  }

  // Replaces the residual entering the block by the one leaving it.
  absl::Status RunBlock(const Block& block, at::Tensor* residual) {
    RETURN_IF_ERROR(pass_.Visit(kResidPre, residual));
    if (!pass_.Needs(kLn1Scale)) return absl::OkStatus();
    at::Tensor sum = *residual;  // what the MLP's output is added to
    at::Tensor normalized;       // ln1's output
    // In a parallel block that ends at a point of the MLP nobody needs the
    // attention.
    if (!config_.parallel_blocks || pass_.Needs(kResidPost) ||
        pass_.WatchesAny(kLn1Scale, kAttnOut)) {
      at::Tensor attention_out;
      RETURN_IF_ERROR(
          RunAttention(block, *residual, &normalized, &attention_out));
      if (!pass_.Needs(kResidMid)) return absl::OkStatus();
      sum = Add(*residual, attention_out, kAttnOut);
      if (!config_.parallel_blocks) {
        RETURN_IF_ERROR(pass_.Visit(kResidMid, &sum));
      }
      if (!pass_.Needs(kMlpIn)) return absl::OkStatus();
    }
    at::Tensor mlp_out;
    RETURN_IF_ERROR(RunMlpSublayer(block,
                                   config_.parallel_blocks ? *residual : sum,
                                   normalized, &mlp_out));
    if (!pass_.Needs(kResidPost)) return absl::OkStatus();
    *residual = Add(sum, mlp_out, kMlpOut);
    return pass_.Visit(kResidPost, residual);
  }

  absl::Status RunAttention(const Block& block, const at::Tensor& residual,
                            at::Tensor* normalized, at::Tensor* out) {
    at::Tensor x = residual;
    RETURN_IF_ERROR(RunNorm(block.ln1, kLn1Scale, kLn1Normalized, &pass_, &x));
    RETURN_IF_ERROR(pass_.Visit(kLn1Out, &x));
    *normalized = x;
    if (!pass_.Needs(kQ)) return absl::OkStatus();
    RETURN_IF_ERROR(attention_.Run(x, out));
    if (!pass_.Needs(kLn1PostScale)) return absl::OkStatus();
    if (config_.post_norms) {
      RETURN_IF_ERROR(RunNorm(block.ln1_post, kLn1PostScale, kLn1PostNormalized,
                              &pass_, out));
    }
    return pass_.Visit(kAttnOut, out);
  }

  // `ln1_out`: what GPT-J's MLP reads, where it exists.
  absl::Status RunMlpSublayer(const Block& block, at::Tensor x,
                              const at::Tensor& ln1_out, at::Tensor* out) {
    const bool reuse = config_.shared_ln1 && ln1_out.defined() &&
                       !pass_.EditsAny(kLn1Scale, kLn1Out) &&
                       !pass_.WatchesAny(kMlpIn, kLn2Normalized);
    if (reuse) {
      x = ln1_out;
    } else {
      RETURN_IF_ERROR(pass_.Visit(kMlpIn, &x));
      if (!pass_.Needs(kLn2Scale)) return absl::OkStatus();
      RETURN_IF_ERROR(
          RunNorm(block.ln2, kLn2Scale, kLn2Normalized, &pass_, &x));
    }
    RETURN_IF_ERROR(pass_.Visit(kLn2Out, &x));
    if (!pass_.Needs(kMlpPre)) return absl::OkStatus();
    RETURN_IF_ERROR(RunMlp(config_, block, x, &pass_, out));
    if (!pass_.Needs(kLn2PostScale)) return absl::OkStatus();
    if (config_.post_norms) {
      RETURN_IF_ERROR(RunNorm(block.ln2_post, kLn2PostScale, kLn2PostNormalized,
                              &pass_, out));
    }
    return pass_.Visit(kMlpOut, out);
  }

  absl::Status Unembed(at::Tensor x) {
    pass_.EnterLayer(-1);
    if (!pass_.Needs(kFinalScale)) return absl::OkStatus();
    RETURN_IF_ERROR(RunNorm(weights_.final_norm, kFinalScale, kFinalNormalized,
                            &pass_, &x));
    RETURN_IF_ERROR(pass_.Visit(kFinalOut, &x));
    if (!pass_.Needs(kLogits)) return absl::OkStatus();
    at::Tensor logits =
        weights_.unembedding(x, pass_.EditsAny(kFinalScale, kFinalOut));
    RETURN_IF_ERROR(pass_.Visit(kLogits, &logits));
    if (!request_.logits) return absl::OkStatus();
    if (config_.logit_softcap > 0) {
      logits =
          (logits / config_.logit_softcap).tanh_().mul_(config_.logit_softcap);
    }
    result_->logits = logits;
    return absl::OkStatus();
  }

  const ModelConfig& config_;
  const Weights& weights_;
  const ForwardRequest& request_;
  ForwardResult* const result_;
  Pass pass_;
  Attention attention_;
};

absl::Status ValidateTokens(const ModelConfig& config,
                            const TokenBatch& batch) {
  const at::Tensor& tokens = batch.tokens;
  if (!tokens.defined() || tokens.dim() != 2 || tokens.numel() == 0 ||
      tokens.scalar_type() != at::kLong || !tokens.device().is_cpu()) {
    return absl::InvalidArgumentError(
        "tokens must be a non-empty [batch, positions] array of int64");
  }
  const int64_t rows = tokens.size(0), longest = tokens.size(1);
  if (longest > config.n_ctx) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a prompt of ", longest,
        " tokens is longer than the model's context of ", config.n_ctx));
  }
  if (static_cast<int64_t>(batch.lengths.size()) != rows) {
    return absl::InvalidArgumentError(absl::StrCat(
        batch.lengths.size(), " lengths for ", rows, " rows of tokens"));
  }
  for (int64_t length : batch.lengths) {
    if (length < 1 || length > longest) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a prompt's length ", length, " is not in 1 to ", longest));
    }
  }
  const auto [low, high] = at::aminmax(tokens.reshape({-1}));
  const int64_t first = low.item<int64_t>(), last = high.item<int64_t>();
  if (first < 0 || last >= config.d_vocab) {
    return absl::InvalidArgumentError(
        absl::StrCat("token id ", first < 0 ? first : last,
                     " is outside the vocabulary, 0 to ", config.d_vocab - 1));
  }
  return absl::OkStatus();
}

absl::Status ValidateStart(const ModelConfig& config,
                           const ForwardRequest& request) {
  if (request.start_layer < 0 || request.start_layer > config.n_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("start layer ", request.start_layer, " is not in 0 to ",
                     config.n_layers));
  }
  if (!request.start_residual.defined()) {
    if (request.start_layer == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "start layer ", request.start_layer, " needs a start residual"));
  }
  const at::IntArrayRef tokens = request.batch.tokens.sizes();
  if (request.start_residual.sizes() !=
      at::IntArrayRef({tokens[0], tokens[1], config.d_model})) {
    return absl::InvalidArgumentError(
        absl::StrCat("the start residual must have shape [", tokens[0], ", ",
                     tokens[1], ", ", config.d_model, "]"));
  }
  return absl::OkStatus();
}

// A point of the model, and not before the pass starts.
absl::Status ValidatePoint(const ModelConfig& config,
                           const ForwardRequest& request,
                           const HookPoint& point) {
  const auto parsed = ParseHookPoint(HookName(point), config);
  if (!parsed.ok()) return parsed.status();
  if (*parsed != point) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", point.layer, " of hook point ", HookName(point),
                     " is not one of the model's"));
  }
  if (request.start_residual.defined() &&
      ForwardOrder(point) < ForwardOrder({kResidPre, request.start_layer})) {
    return absl::InvalidArgumentError(
        absl::StrCat(HookName(point), " lies before the start at layer ",
                     request.start_layer));
  }
  return absl::OkStatus();
}

absl::Status ValidateKeep(const ModelConfig& config, const Keep& keep) {
  if (keep.from_layer < 0 || keep.from_layer > config.n_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("keep.from_layer is ", keep.from_layer,
                     "; accepted: 0 to ", config.n_layers));
  }
  for (int layer : keep.residuals) {
    if (layer < 0 || layer > config.n_layers) {
      return absl::InvalidArgumentError(absl::StrCat("keep.residuals holds ",
                                                     layer, "; accepted: 0 to ",
                                                     config.n_layers));
    }
  }
  return absl::OkStatus();
}

// Rows, positions and layers that were kept, and nothing asked that a
// continuing pass does not make.
absl::Status ValidateContinuation(const ModelConfig& config,
                                  const ForwardRequest& request) {
  const Continuation& continuation = request.continuation;
  const int64_t rows = request.batch.tokens.size(0);
  if (static_cast<int64_t>(continuation.kept_rows.size()) != rows ||
      static_cast<int64_t>(continuation.first.size()) != rows) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a continuation names ", continuation.kept_rows.size(), " rows and ",
        continuation.first.size(), " positions for a batch of ", rows));
  }
  if (request.keep.has_value()) {
    return absl::InvalidArgumentError("a continuing pass keeps nothing");
  }
  for (int layer = request.start_layer; layer < config.n_layers; ++layer) {
    const at::Tensor& keys = continuation.kept->keys[layer];
    if (!keys.defined()) continue;  // refused where the pass needs it
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = continuation.kept_rows[i];
      const int64_t first = continuation.first[i];
      if (row < 0 || row >= keys.size(0) || first < 0 || first > keys.size(2) ||
          first + request.batch.lengths[i] > config.n_ctx) {
        return absl::InvalidArgumentError(absl::StrCat(
            "row ", i, " continues kept row ", row, " at position ", first,
            " with ", request.batch.lengths[i], " tokens; kept are ",
            keys.size(0), " rows of ", keys.size(2),
            " positions, the context has ", config.n_ctx));
      }
    }
  }
  const auto square = [](const HookPoint& point) {
    return point.kind == HookKind::kAttnScores ||
           point.kind == HookKind::kPattern;
  };
  for (const auto* points : {&request.captures, &request.edits}) {
    for (const HookPoint& point : *points) {
      if (square(point)) {
        return absl::InvalidArgumentError(absl::StrCat(
            HookName(point), " does not exist in a continuing pass"));
      }
    }
  }
  return absl::OkStatus();
}

// One token for each row, with room for it, and nothing asked that a growing
// pass does not make.
absl::Status ValidateGrowing(const ModelConfig& config,
                             const ForwardRequest& request) {
  const GrowingState& state = *request.growing;
  const at::IntArrayRef tokens = request.batch.tokens.sizes();
  if (tokens[0] != state.rows() || tokens[1] != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a growing pass over ", state.rows(),
                     " rows takes one token for each, not [", tokens[0], ", ",
                     tokens[1], "] tokens"));
  }
  const int64_t room = std::min(state.capacity(), config.n_ctx);
  if (state.longest() >= room) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a row of ", state.longest(), " tokens cannot grow beyond ", room));
  }
  if (request.keep.has_value() || request.continuation.kept != nullptr ||
      request.stop_at_layer.has_value() || request.start_residual.defined() ||
      !request.logits) {
    return absl::InvalidArgumentError(
        "a growing pass goes from the tokens to the logits and keeps nothing "
        "else");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateForward(const ModelConfig& config,
                             const ForwardRequest& request) {
  RETURN_IF_ERROR(ValidateTokens(config, request.batch));
  RETURN_IF_ERROR(ValidateStart(config, request));
  if (request.stop_at_layer.has_value() &&
      (*request.stop_at_layer < request.start_layer ||
       *request.stop_at_layer > config.n_layers)) {
    return absl::InvalidArgumentError(
        absl::StrCat("stop layer ", *request.stop_at_layer, " is not in ",
                     request.start_layer, " to ", config.n_layers));
  }
  for (const HookPoint& point : request.captures) {
    RETURN_IF_ERROR(ValidatePoint(config, request, point));
  }
  for (const HookPoint& point : request.edits) {
    RETURN_IF_ERROR(ValidatePoint(config, request, point));
  }
  if (request.keep.has_value()) {
    RETURN_IF_ERROR(ValidateKeep(config, *request.keep));
  }
  if (request.continuation.kept != nullptr) {
    RETURN_IF_ERROR(ValidateContinuation(config, request));
  }
  if (request.growing != nullptr) {
    RETURN_IF_ERROR(ValidateGrowing(config, request));
  }
  if (!request.edits.empty() && !request.edit) {
    return absl::InvalidArgumentError("edits without an edit function");
  }
  return absl::OkStatus();
}

absl::StatusOr<ForwardResult> RunForward(const ModelConfig& config,
                                         const Weights& weights,
                                         const ForwardRequest& request) {
  ForwardResult result;
  RETURN_IF_ERROR(Forward(config, weights, request, &result).Run());
  if (request.growing != nullptr) request.growing->Advance();
  return result;
}

}  // namespace cupola::model
