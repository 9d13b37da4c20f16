#include "server/engine/ask_quality.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/quality.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

// A loss needs a next token.
absl::Status CheckScored(const Question& question, bool every) {
  for (size_t i = 0; i < question.sequences.size(); ++i) {
    const analysis::Sequence& sequence = *question.sequences[i];
    if (sequence.positions.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("positions: none is selected in prompts[", i, "]"));
    }
    if (analysis::ScoredPositions(sequence, every).empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "prompts[", i, "] has ", sequence.tokens.size(),
          " tokens, and no selected position but the last one: there is no "
          "next token whose loss could be told; accepted: positions before ",
          static_cast<int64_t>(sequence.tokens.size()) - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Question> AskQuality(const QualityRequest& request,
                                    const Sources& sources,
                                    const Limits& limits) {
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kQuality));
  RETURN_IF_ERROR(AddPrompts(request.prompts, request.positions,
                             request.processing, sources, limits, question));
  RETURN_IF_ERROR(CheckScored(question, request.score_every));
  const model::ModelConfig& config = sources.model->config();
  question.work = {.passes = 4,  // clean, zeroed and twice rebuilt
                   .flops_per_row = 8.0 * config.d_model * config.d_vocab};
  question.answer_bytes = 64.0 * RowCount(question);
  question.labels = {request.score_every ? "every" : "selected"};
  const auto [hook_in, hook_out] = HooksOf(question, sources);
  question.identity =
      analysis::QualityAnalysis::Identity(question.provenance.dictionary_digest,
                                          question.half, request.score_every);
  question.bind = [in = hook_in, out = hook_out,
                   every = request.score_every](DictionaryPtr dictionary) {
    return std::make_shared<analysis::QualityAnalysis>(std::move(dictionary),
                                                       in, out, every);
  };
  return question;
}

QualityAnswer AnswerQuality(const Question& question, Answered answered) {
  QualityAnswer answer;
  answer.summary = analysis::Summarize(answered.records);
  answer.losses = Concatenate(answered.records, 0);
  answer.squared_error = Concatenate(answered.records, 1);
  answer.l0 = Concatenate(answered.records, 2);
  LabelRows(question, answer.prompt, answer.position);
  const bool every = question.labels.front() == "every";
  std::vector<int32_t> prompts, positions;
  for (size_t i = 0; i < question.sequences.size(); ++i) {
    for (int64_t position :
         analysis::ScoredPositions(*question.sequences[i], every)) {
      prompts.push_back(static_cast<int32_t>(i));
      positions.push_back(static_cast<int32_t>(position));
    }
  }
  answer.loss_prompt = Int32Array(prompts);
  answer.loss_position = Int32Array(positions);
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
