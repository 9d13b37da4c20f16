#include "server/engine/ask_activations.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/activations.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

absl::StatusOr<Question> AskActivations(const ActivationsRequest& request,
                                        const Sources& sources,
                                        const Limits& limits) {
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kActivations));
  if (request.hooks.empty()) {
    return absl::InvalidArgumentError("hooks is empty: name at least one");
  }
  if (request.dtype != storage::DType::kFloat32 &&
      request.dtype != storage::DType::kBFloat16 &&
      request.dtype != storage::DType::kFloat16) {
    return absl::InvalidArgumentError(
        "dtype must be FLOAT32, BFLOAT16 or FLOAT16");
  }
  const model::ModelConfig& config = sources.model->config();
  std::vector<model::HookPoint> hooks;
  for (const std::string& name : request.hooks) {
    ASSIGN_OR_RETURN(model::HookPoint hook,
                     model::ParseHookPoint(name, config));
    hooks.push_back(hook);
    question.labels.push_back(model::HookName(hook));
  }
  RETURN_IF_ERROR(AddPrompts(request.prompts, request.positions,
                             request.processing, sources, limits, question));
  double bytes = 0;
  for (const model::HookPoint& hook : hooks) {
    for (const auto& sequence : question.sequences) {
      double values = sequence->positions.size();
      for (int64_t size : model::HookShape(hook, config)) {
        values *= size < 0 ? sequence->tokens.size() : size;
      }
      bytes += values * storage::SizeOf(request.dtype);
    }
  }
  RETURN_IF_ERROR(NoteAnswerBytes(bytes, limits, question));
  question.work.passes = ShareOfPass(hooks, config);
  question.identity =
      analysis::ActivationsAnalysis::Identity(hooks, request.dtype);
  question.bind = [hooks, dtype = request.dtype](DictionaryPtr) {
    return std::make_shared<analysis::ActivationsAnalysis>(hooks, dtype);
  };
  return question;
}

ActivationsAnswer AnswerActivations(const Question& question,
                                    Answered answered) {
  ActivationsAnswer answer;
  answer.hooks = question.labels;
  answer.activations.resize(answered.records.front()->size());
  for (size_t i = 0; i < answered.records.size(); ++i) {
    for (size_t h = 0; h < answer.activations.size(); ++h) {
      answer.activations[h].push_back((*answered.records[i])[h]);
    }
    const std::vector<int64_t>& rows = question.sequences[i]->positions;
    answer.positions.push_back(Int32Array({rows.begin(), rows.end()}));
  }
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
