#include "server/engine/ask_attribution.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/analysis/attention_attribution.h"
#include "server/analysis/encoder_directions.h"
#include "server/analysis/logit_lens.h"
#include "server/analysis/tensor_io.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::AttributionTarget;

// Marks an answer that is a mean over rows.
constexpr char kMean[] = "mean";

absl::Status CheckTokens(const std::vector<int64_t>& tokens,
                         const model::ModelConfig& config,
                         absl::string_view field) {
  for (int64_t token : tokens) {
    if (token < 0 || token >= config.d_vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": ", token, " is outside the vocabulary, 0 to ",
                       config.d_vocab - 1));
    }
  }
  return absl::OkStatus();
}

// Whether the answer tells of source positions instead of components.
bool ThroughAttention(const Question& question, const Sources& sources,
                      const analysis::AttributionQuery& query) {
  return query.target == AttributionTarget::kLatents &&
         HooksOf(question, sources).first.kind == model::HookKind::kZ;
}

absl::Status CheckInactive(const analysis::AttributionQuery& query,
                           const analysis::LatentReading& reading,
                           const model::ModelConfig& config) {
  const std::vector<int64_t>& shape = query.inactive.shape;
  if (shape.empty()) return absl::OkStatus();
  if (!reading.neurons) {
    return absl::InvalidArgumentError(
        "latents.inactive goes with a dictionary on mlp.hook_post only");
  }
  const int64_t components =
      analysis::ComponentCount(query.decomposition, config);
  if (shape == std::vector<int64_t>{components, config.d_mlp}) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("latents.inactive has shape [", absl::StrJoin(shape, ", "),
                   "]; accepted: [", components, ", ", config.d_mlp, "]"));
}

// The target's checks; returns how many directions there are.
absl::StatusOr<int64_t> CheckTarget(const Question& question,
                                    const Sources& sources,
                                    analysis::AttributionQuery* query) {
  const model::ModelConfig& config = sources.model->config();
  analysis::Decomposition& decomposition = query->decomposition;
  const bool last = decomposition.layer == -1;
  if (last) decomposition.layer = config.n_layers;
  switch (query->target) {
    case AttributionTarget::kTokens: {
      RETURN_IF_ERROR(CheckTokens(query->tokens, config, "tokens"));
      RETURN_IF_ERROR(CheckTokens(query->incorrect, config, "incorrect"));
      if (!query->incorrect.empty() &&
          query->incorrect.size() != query->tokens.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("incorrect has ", query->incorrect.size(),
                         " tokens; accepted: none, or ", query->tokens.size(),
                         " as in tokens"));
      }
      if (!last && decomposition.layer != config.n_layers) {
        return absl::InvalidArgumentError(
            absl::StrCat("layer is ", decomposition.layer,
                         ", but tokens are read from the "
                         "last residual; accepted: -1"));
      }
      return query->tokens.size();
    }
    case AttributionTarget::kLatents: {
      if (sources.dictionary == nullptr) {
        return absl::InvalidArgumentError(
            "latents need a dictionary; it is not given");
      }
      const dictionary::Manifest& manifest = sources.dictionary->manifest();
      for (int64_t latent : query->latents) {
        if (latent >= manifest.d_sae) {
          return absl::InvalidArgumentError(absl::StrCat(
              "latents: ", latent, " is not below d_sae = ", manifest.d_sae));
        }
      }
      if (!last || decomposition.mlp_input) {
        return absl::InvalidArgumentError(
            "layer and mlp_input follow from the latents' dictionary; leave "
            "them out");
      }
      if (ThroughAttention(question, sources, *query)) {
        RETURN_IF_ERROR(analysis::CheckLinearEncoder(manifest));
        if (!query->inactive.shape.empty()) {
          return absl::InvalidArgumentError(
              "latents.inactive is for dictionaries on mlp.hook_post; leave it "
              "out");
        }
        return query->latents.size();
      }
      ASSIGN_OR_RETURN(const analysis::LatentReading reading,
                       analysis::ReadingOf(HooksOf(question, sources).first,
                                           manifest, config));
      decomposition.layer = reading.layer;
      decomposition.mlp_input = reading.mlp_input;
      RETURN_IF_ERROR(CheckInactive(*query, reading, config));
      return query->latents.size();
    }
    case AttributionTarget::kVectors:
      if (query->vectors.shape.size() != 2 ||
          query->vectors.shape[1] != config.d_model) {
        return absl::InvalidArgumentError(absl::StrCat(
            "vectors has shape [", absl::StrJoin(query->vectors.shape, ", "),
            "]; accepted: [n, ", config.d_model, "]"));
      }
      return query->vectors.shape[0];
    case AttributionTarget::kNone:
      return config.d_model;
  }
  return absl::InternalError("an attribution without a target");
}

int64_t Longest(const Question& question) {
  size_t longest = 0;
  for (const auto& sequence : question.sequences) {
    longest = std::max(longest, sequence->tokens.size());
  }
  return longest;
}

absl::StatusOr<Question> AskAttention(const AttributeRequest& request,
                                      const analysis::AttributionQuery& query,
                                      int64_t components, int layer,
                                      Question question) {
  if (request.mean) {
    return absl::InvalidArgumentError(
        "mean: the components of a dictionary on attn.hook_z are the prompt's "
        "positions, over which prompts have no mean");
  }
  for (int64_t i = 0; i < components; ++i) {
    question.labels.push_back(absl::StrCat(i));
  }
  question.identity = analysis::AttentionAttributionAnalysis::Identity(
      question.provenance.dictionary_digest, question.half, query.latents);
  question.bind = [layer, latents = query.latents](DictionaryPtr dictionary) {
    return std::make_shared<analysis::AttentionAttributionAnalysis>(
        std::move(dictionary), layer, latents);
  };
  return question;
}

// The values of all records, one below the other, with as many components as
// the one that has most: the others' are zero.
Array PadComponents(const Records& records, int64_t components) {
  std::vector<at::Tensor> parts;
  for (const auto& record : records) {
    const at::Tensor mine = analysis::ViewOf(record->front());
    parts.push_back(
        at::constant_pad_nd(mine, {0, 0, 0, components - mine.size(1)}));
  }
  return analysis::ToArray(at::cat(parts), storage::DType::kFloat32);
}

// The mean over the rows of all records, in float64: [1, ...].
Array MeanRows(const Records& records, size_t which) {
  at::Tensor sum;
  double rows = 0;
  for (const auto& record : records) {
    const at::Tensor mine = analysis::ViewOf((*record)[which]);
    const at::Tensor part = mine.sum(0, /*keepdim=*/true, at::kDouble);
    sum = sum.defined() ? sum + part : part;
    rows += mine.size(0);
  }
  return analysis::ToArray(sum / rows, storage::DType::kFloat32);
}

}  // namespace

absl::StatusOr<Question> AskAttribute(const AttributeRequest& request,
                                      const Sources& sources,
                                      const Limits& limits) {
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kAttribution));
  if (!request.model.empty() && request.model != sources.model_name) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model is ", request.model, ", but dictionary ",
        sources.dictionary_name, " belongs to ", sources.model_name));
  }
  const bool split = request.split_dictionary;
  if (split && sources.dictionary == nullptr) {
    return absl::InvalidArgumentError(
        "split_dictionary needs a dictionary; it is not given");
  }
  if (split && request.query.target == AttributionTarget::kLatents) {
    return absl::InvalidArgumentError(
        "split_dictionary and latents contradict: the dictionary is either a "
        "component or the target");
  }
  const model::ModelConfig& config = sources.model->config();
  analysis::AttributionQuery query = request.query;
  ASSIGN_OR_RETURN(const int64_t directions,
                   CheckTarget(question, sources, &query));
  model::HookPoint hook_in;
  if (sources.dictionary != nullptr) {
    const auto [in, out] = HooksOf(question, sources);
    hook_in = in;
    if (split) query.decomposition.split = out;
  }
  RETURN_IF_ERROR(analysis::CheckDecomposition(query.decomposition, config));
  RETURN_IF_ERROR(AddPrompts(request.prompts, request.positions,
                             request.processing, sources, limits, question));
  const bool attention = ThroughAttention(question, sources, query);
  const int64_t components =
      attention ? Longest(question)
                : analysis::ComponentCount(query.decomposition, config);
  // A mean is made from what every row contributes. On the way every direction
  // is a vector, of latents of neurons and of heads one per row.
  const bool per_row = request.query.target == AttributionTarget::kLatents;
  const double rows = RowCount(question);
  RETURN_IF_ERROR(CheckAnswerBytes(
      4.0 * directions *
          (rows * (components + 1.0) +
           (1 + (per_row ? rows : 0)) * static_cast<double>(config.d_model)),
      limits));
  if (attention) {
    return AskAttention(request, query, components, hook_in.layer,
                        std::move(question));
  }
  question.labels = analysis::ComponentLabels(query.decomposition, config);
  if (request.mean) {
    if (RowCount(question) == 0) {
      return absl::InvalidArgumentError("mean: no position is selected");
    }
    question.labels.push_back(kMean);
  }
  question.identity = analysis::AttributionAnalysis::Identity(
      question.provenance.dictionary_digest, question.half, query);
  question.bind = [hook_in, query,
                   source = sources.model](DictionaryPtr dictionary) {
    return std::make_shared<analysis::AttributionAnalysis>(
        std::move(dictionary), hook_in, query, source->config());
  };
  return question;
}

AttributeAnswer AnswerAttribute(const Question& question, Answered answered) {
  AttributeAnswer answer;
  answer.components = question.labels;
  if (answer.components.back() == kMean) {
    answer.components.pop_back();
    answer.values = MeanRows(answered.records, 0);
    answer.total = MeanRows(answered.records, 1);
    answer.prompt = answer.position = Int32Array({});
  } else {
    answer.values = PadComponents(
        answered.records, static_cast<int64_t>(answer.components.size()));
    answer.total = Concatenate(answered.records, 1);
    LabelRows(question, answer.prompt, answer.position);
  }
  answer.bias = (*answered.records.front())[2];
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

absl::StatusOr<Question> AskLogitLens(const LogitLensRequest& request,
                                      const Sources& sources,
                                      const Limits& limits) {
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kLogitLens));
  const model::ModelConfig& config = sources.model->config();
  if (request.tokens.empty() && request.top == 0) {
    return absl::InvalidArgumentError(
        "nothing is asked; accepted: tokens, top or both");
  }
  RETURN_IF_ERROR(CheckTokens(request.tokens, config, "tokens"));
  if (request.top > config.d_vocab) {
    return absl::InvalidArgumentError(absl::StrCat("top is ", request.top,
                                                   "; the vocabulary has ",
                                                   config.d_vocab, " tokens"));
  }
  if (request.mids && config.parallel_blocks) {
    return absl::InvalidArgumentError(
        "mids is set, but this model's blocks are parallel and have no "
        "hook_resid_mid");
  }
  RETURN_IF_ERROR(AddPrompts(request.prompts, request.positions,
                             request.processing, sources, limits, question));
  const analysis::LogitLensQuery query{
      .residuals = analysis::AccumulatedResiduals(config, request.mids),
      .tokens = request.tokens,
      .top = request.top};
  for (const model::HookPoint& residual : query.residuals) {
    question.labels.push_back(analysis::ResidualLabel(residual, config));
  }
  const double values = 2.0 * request.top + 3.0 * request.tokens.size();
  RETURN_IF_ERROR(CheckAnswerBytes(
      4.0 * RowCount(question) * query.residuals.size() * values, limits));
  question.identity = analysis::LogitLensAnalysis::Identity(query);
  question.bind = [query](DictionaryPtr) {
    return std::make_shared<analysis::LogitLensAnalysis>(query);
  };
  return question;
}

LogitLensAnswer AnswerLogitLens(const Question& question, Answered answered) {
  LogitLensAnswer answer;
  answer.residuals = question.labels;
  Array* const arrays[] = {&answer.top_tokens, &answer.top_logits,
                           &answer.logits, &answer.logprobs, &answer.ranks};
  for (size_t i = 0; i < std::size(arrays); ++i) {
    *arrays[i] = Concatenate(answered.records, i);
  }
  LabelRows(question, answer.prompt, answer.position);
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
