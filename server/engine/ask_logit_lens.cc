#include "server/engine/ask_logit_lens.h"

#include <iterator>
#include <memory>

#include "absl/strings/str_cat.h"
#include "server/analysis/logit_lens.h"
#include "server/engine/attribution_target.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

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
  RETURN_IF_ERROR(NoteAnswerBytes(
      4.0 * RowCount(question) * query.residuals.size() * values, limits,
      question));
  question.work.flops_per_row =
      2.0 * query.residuals.size() * config.d_model * config.d_vocab;
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
