#include "server/engine/ask_attribution.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/attention_attribution.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/engine/attribution_target.h"
#include "server/engine/place_interventions.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::AttributionTarget;

// Marks an answer that is a mean over rows.
constexpr char kMean[] = "mean";

int64_t Longest(const Question& question) {
  size_t longest = 0;
  for (const auto& sequence : question.sequences) {
    longest = std::max(longest, sequence->tokens.size());
  }
  return static_cast<int64_t>(longest);
}

absl::Status CheckBytes(Question& question,
                        const analysis::AttributionQuery& query,
                        double components, double directions,
                        const Sources& sources, const Limits& limits) {
  // Of a mean every prompt leaves one row.
  const double rows =
      query.mean ? question.sequences.size() : RowCount(question);
  // Every component meets every direction.
  question.work.flops_per_row =
      2.0 * components * directions * sources.model->config().d_model;
  return NoteAnswerBytes(
      4 * directions *
          (rows * (components + 2) + sources.model->config().d_model),
      limits, question);
}

// Where each split's dictionary reads, and which of the question's it is.
struct Splits {
  std::vector<model::HookPoint> hooks_in;
  std::vector<int> dictionaries;
};

absl::StatusOr<Splits> PlaceSplits(const std::vector<std::string>& names,
                                   analysis::Decomposition* decomposition,
                                   NamedDictionaries* dictionaries) {
  Splits splits;
  for (size_t i = 0; i < names.size(); ++i) {
    ASSIGN_OR_RETURN(
        const int index,
        dictionaries->Index(names[i],
                            absl::StrCat("split_dictionaries[", i, "]")));
    const auto [in, out] =
        HooksOf(dictionaries->manifest(index), dictionaries->half(index));
    splits.hooks_in.push_back(in);
    splits.dictionaries.push_back(index);
    decomposition->splits.push_back(out);
  }
  return splits;
}

absl::StatusOr<Question> AskAttention(const analysis::AttributionQuery& query,
                                      double latents, const Sources& sources,
                                      const Limits& limits, Question question) {
  const int layer = HooksOf(question, sources).first.layer;
  const model::ModelConfig& config = sources.model->config();
  const bool heads =
      query.decomposition.level == analysis::ComponentLevel::kHeads;
  if (query.mean && !heads) {
    return absl::InvalidArgumentError(
        "mean: the components of a dictionary on attn.hook_z are the prompt's "
        "positions, over which prompts have no mean; accepted: with level "
        "HEADS");
  }
  const int64_t longest = Longest(question);
  const int64_t components = heads ? config.n_heads : longest;
  RETURN_IF_ERROR(
      CheckBytes(question, query, components, latents, sources, limits));
  // On the way the values of one prompt meet the latents head by head.
  if (!heads) {
    RETURN_IF_ERROR(
        CheckAnswerBytes(4 * latents * longest * config.n_heads, limits));
  }
  for (int64_t i = 0; i < components; ++i) {
    question.labels.push_back(heads ? absl::StrCat("L", layer, "H", i)
                                    : absl::StrCat(i));
  }
  if (query.mean) question.labels.push_back(kMean);
  const analysis::AttentionQuery asked{query.latents, heads, query.mean};
  question.identity = analysis::AttentionAttributionAnalysis::Identity(
      question.provenance.dictionary_digest, question.half, asked);
  question.bind = [layer, asked](DictionaryPtr dictionary) {
    return std::make_shared<analysis::AttentionAttributionAnalysis>(
        std::move(dictionary), layer, asked);
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

// Each sequence's bias, once for each of its rows.
Array BiasOfRows(const Question& question, const Records& records) {
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < records.size(); ++i) {
    const at::Tensor mine = analysis::ViewOf((*records[i])[2]);
    parts.push_back(mine.unsqueeze(0).expand(
        {analysis::RowCount(*question.sequences[i]), -1}));
  }
  return analysis::ToArray(at::cat(parts), storage::DType::kFloat32);
}

// The mean over all rows of what each record holds the mean of, in float64;
// `by_rows` false: over the prompts that have rows.
Array MeanOf(const Question& question, const Records& records, size_t which,
             bool by_rows) {
  at::Tensor sum;
  double weights = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    const double rows = analysis::RowCount(*question.sequences[i]);
    const double weight = by_rows ? rows : rows > 0 ? 1 : 0;
    at::Tensor mine = analysis::ViewOf((*records[i])[which]).to(at::kDouble);
    if (which == 2) mine = mine.unsqueeze(0);  // a bias is of no row
    const at::Tensor part = weight * mine;
    sum = sum.defined() ? sum + part : part;
    weights += weight;
  }
  return analysis::ToArray(sum / weights, storage::DType::kFloat32);
}

AttributeAnswer MeanAnswer(const Question& question, const Answered& answered,
                           bool by_rows) {
  AttributeAnswer answer;
  answer.components = question.labels;
  answer.components.pop_back();  // kMean
  answer.values = MeanOf(question, answered.records, 0, by_rows);
  answer.total = MeanOf(question, answered.records, 1, by_rows);
  answer.bias = MeanOf(question, answered.records, 2, by_rows);
  answer.prompt = answer.position = Int32Array({});
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
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
  const model::ModelConfig& config = sources.model->config();
  analysis::AttributionQuery query = request.query;
  NamedDictionaries dictionaries(sources);
  ASSIGN_OR_RETURN(
      const Splits splits,
      PlaceSplits(request.splits, &query.decomposition, &dictionaries));
  ASSIGN_OR_RETURN(const int64_t directions,
                   SettleTarget(request, question, sources, &query));
  RETURN_IF_ERROR(AddPrompts(request.prompts, request.positions,
                             request.processing, sources, limits, question));
  if (query.mean && RowCount(question) == 0) {
    return absl::InvalidArgumentError("mean: no position is selected");
  }
  if (ThroughAttention(question, sources, query)) {
    return AskAttention(query, directions, sources, limits,
                        std::move(question));
  }
  RETURN_IF_ERROR(analysis::CheckDecomposition(query.decomposition, config));
  RETURN_IF_ERROR(CheckBytes(
      question, query, analysis::ComponentCount(query.decomposition, config),
      directions, sources, limits));
  if (query.target == AttributionTarget::kTokens) {
    for (size_t i = 0; i < question.sequences.size(); ++i) {
      auto sequence =
          std::make_shared<analysis::Sequence>(*question.sequences[i]);
      sequence->lists = ListsOf(request, i);
      question.sequences[i] = std::move(sequence);
    }
  }
  question.labels = analysis::ComponentLabels(query.decomposition, config);
  if (query.mean) question.labels.push_back(kMean);
  const bool latents = query.target == AttributionTarget::kLatents;
  model::HookPoint hook_in;
  storage::Digest digest{};
  if (latents) {
    hook_in = HooksOf(question, sources).first;
    digest = question.provenance.dictionary_digest;
  } else {
    question.dictionary.clear();  // it need not be loaded
  }
  std::vector<storage::Digest> split_digests;
  for (int index : splits.dictionaries) {
    split_digests.push_back(dictionaries.Digests()[index]);
  }
  question.others = dictionaries.uses();
  question.identity = analysis::AttributionAnalysis::Identity(
      digest, question.half, split_digests, query);
  question.bind = [hook_in, splits, query,
                   source = sources.model](const BoundDictionaries& bound) {
    std::vector<analysis::SplitDictionary> parts;
    for (size_t i = 0; i < splits.hooks_in.size(); ++i) {
      parts.push_back(
          {bound.others[splits.dictionaries[i]], splits.hooks_in[i]});
    }
    return std::make_shared<analysis::AttributionAnalysis>(
        bound.dictionary, hook_in, std::move(parts), query, source->config());
  };
  return question;
}

AttributeAnswer AnswerAttribute(const Question& question, Answered answered) {
  if (question.labels.back() == kMean) {
    return MeanAnswer(question, answered, /*by_rows=*/true);
  }
  AttributeAnswer answer;
  answer.components = question.labels;
  answer.values = PadComponents(answered.records,
                                static_cast<int64_t>(question.labels.size()));
  answer.total = Concatenate(answered.records, 1);
  answer.bias = BiasOfRows(question, answered.records);
  LabelRows(question, answer.prompt, answer.position);
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

absl::StatusOr<Question> AskReference(const AttributeRequest& request,
                                      const Sources& sources,
                                      const Limits& limits) {
  ASSIGN_OR_RETURN(const Question begun,
                   BeginQuestion(sources, analysis::Operation::kAttribution));
  // As the latents' own question would be settled.
  AttributeRequest asked = request;
  NamedDictionaries dictionaries(sources);
  analysis::AttributionQuery settled = request.query;
  RETURN_IF_ERROR(
      PlaceSplits(request.splits, &settled.decomposition, &dictionaries)
          .status());
  RETURN_IF_ERROR(SettleTarget(request, begun, sources, &settled).status());
  asked.query = {};
  asked.query.decomposition = settled.decomposition;
  asked.query.decomposition.splits.clear();  // named by the request again
  asked.query.target = AttributionTarget::kNone;
  asked.query.apply_norm = true;
  asked.query.mean = true;
  asked.prompts = *request.reference;
  asked.positions = request.reference_positions;
  asked.reference.reset();
  absl::StatusOr<Question> question = AskAttribute(asked, sources, limits);
  if (question.ok()) return question;
  return InField("latents.reference", question.status());
}

AttributeAnswer AnswerReference(const Question& question, Answered answered) {
  return MeanAnswer(question, answered, /*by_rows=*/false);
}

AttributeRequest WithReference(AttributeRequest request,
                               AttributeAnswer reference) {
  request.reference.reset();
  request.query.reference = std::move(reference.values);
  request.query.reference.shape.erase(request.query.reference.shape.begin());
  return request;
}

}  // namespace cupola::engine
