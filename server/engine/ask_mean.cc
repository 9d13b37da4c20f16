#include "server/engine/ask_mean.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/intervention.h"
#include "server/analysis/mean_activation.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

absl::StatusOr<Question> AskMeanActivation(const MeanActivationRequest& request,
                                           const Sources& sources,
                                           const Limits& limits) {
  ASSIGN_OR_RETURN(
      Question question,
      BeginQuestion(sources, analysis::Operation::kMeanActivation));
  if (!request.name.empty()) {
    RETURN_IF_ERROR(MeanStore::CheckName(request.name, "name"));
  }
  ASSIGN_OR_RETURN(
      const model::HookPoint hook,
      model::ParseHookPoint(request.hook, sources.model->config()));
  if (analysis::IsSquare(hook)) {
    return absl::InvalidArgumentError(
        absl::StrCat("hook: ", model::HookName(hook),
                     " has one entry per key and no mean; accepted: a hook "
                     "point with a width"));
  }
  RETURN_IF_ERROR(AddPrompts(request.prompts, request.positions,
                             request.processing, sources, limits, question));
  if (RowCount(question) == 0) {
    return absl::InvalidArgumentError(
        "positions: none is selected in any prompt; accepted: at least one");
  }
  question.labels = {model::HookName(hook)};
  question.work.passes = ShareOfPass({hook}, sources.model->config());
  double width = sizeof(float);
  for (int64_t size : model::HookShape(hook, sources.model->config())) {
    width *= static_cast<double>(size);
  }
  question.answer_bytes =
      width * static_cast<double>(question.sequences.size());
  question.identity = analysis::MeanActivationAnalysis::Identity(hook);
  question.bind = [hook](DictionaryPtr) {
    return std::make_shared<analysis::MeanActivationAnalysis>(hook);
  };
  return question;
}

MeanActivationAnswer AnswerMeanActivation(const Question& question,
                                          Answered answered) {
  MeanActivationAnswer answer;
  const int64_t count = RowCount(question);
  answer.mean = analysis::MeanOf(answered.records, count);
  answer.info.key = {question.provenance.model_digest,
                     question.provenance.processing, question.labels.front(),
                     ""};
  answer.info.shape = answer.mean.shape;
  answer.info.count = count;
  answer.info.digest = DigestOfMean(answer.mean);
  answer.info.written = absl::Now();
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
