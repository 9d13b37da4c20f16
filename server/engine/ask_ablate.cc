#include "server/engine/ask_ablate.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/ablate.h"
#include "server/engine/ask_run.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;

Positions OnePosition(const Positions& positions) {
  if (positions.kind != Positions::Kind::kAll) return positions;
  Positions last_but_one;
  last_but_one.kind = Positions::Kind::kEveryPrompt;
  last_but_one.lists = {{-2}};
  return last_but_one;
}

absl::StatusOr<std::vector<int64_t>> LatentsOf(const AblateRequest& request,
                                               size_t prompt, int64_t d_sae) {
  std::set<int64_t> sorted;
  for (uint32_t latent : request.prompt_latents.empty()
                             ? request.latents
                             : request.prompt_latents[prompt]) {
    if (latent >= d_sae) {
      return InvalidArgumentError(
          StrCat("latents: ", latent, " is not below d_sae = ", d_sae));
    }
    sorted.insert(latent);
  }
  return std::vector<int64_t>(sorted.begin(), sorted.end());
}

absl::Status CheckPosition(const analysis::Sequence& sequence, size_t prompt,
                           bool answers) {
  if (sequence.positions.size() != 1) {
    return InvalidArgumentError(StrCat("position: ", sequence.positions.size(),
                                       " for prompt ", prompt,
                                       "; accepted: one per prompt"));
  }
  const size_t position = sequence.positions[0];
  if (!answers && position + 1 == sequence.tokens.size()) {
    return InvalidArgumentError(StrCat(
        "position: ", position, " is the last token of prompt ", prompt,
        ", which no token follows; accepted: an earlier one, or answers"));
  }
  return absl::OkStatus();
}

// [prompts, ...] from the prompts' own arrays.
Array Stack(const Records& records, size_t which) {
  Array all = Concatenate(records, which);
  const int64_t prompts = static_cast<int64_t>(records.size());
  all.shape.front() /= prompts;
  all.shape.insert(all.shape.begin(), prompts);
  return all;
}

}  // namespace

absl::StatusOr<Question> AskAblate(const AblateRequest& request,
                                   const Sources& sources,
                                   const Limits& limits) {
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kAblate));
  const auto [hook_in, hook_out] = HooksOf(question, sources);
  if (model::ForwardOrder(hook_in) > model::ForwardOrder(hook_out)) {
    return InvalidArgumentError(
        StrCat("dictionary: it reads ", model::HookName(hook_in),
               ", which comes after ", model::HookName(hook_out),
               ", where it writes; nothing of it can be taken away"));
  }
  RETURN_IF_ERROR(AddPrompts(request.prompts, OnePosition(request.positions),
                             request.processing, sources, limits, question));
  ASSIGN_OR_RETURN(auto answers,
                   CheckAnswers(request.answers, question.sequences.size(),
                                sources.model->config()));
  const analysis::AblateOptions options{
      request.mode, static_cast<int64_t>(answers.front().size())};
  double rows = 0;
  for (size_t i = 0; i < question.sequences.size(); ++i) {
    auto sequence =
        std::make_shared<analysis::Sequence>(*question.sequences[i]);
    RETURN_IF_ERROR(CheckPosition(*sequence, i, options.answers > 0));
    ASSIGN_OR_RETURN(
        std::vector<int64_t> latents,
        LatentsOf(request, i, sources.dictionary->manifest().d_sae));
    rows += latents.size();
    sequence->lists = {std::move(answers[i]), std::move(latents)};
    question.sequences[i] = std::move(sequence);
  }
  // Latent, activation and loss, and of each answer two numbers. How many
  // latents are active is not known before.
  RETURN_IF_ERROR(CheckAnswerBytes(
      rows * (12 + 8.0 * std::max<int64_t>(1, options.answers)), limits));
  question.identity = analysis::AblateAnalysis::Identity(
      question.provenance.dictionary_digest, question.half, options);
  question.bind = [hook_in = hook_in, hook_out = hook_out,
                   options](DictionaryPtr dictionary) {
    return std::make_shared<analysis::AblateAnalysis>(
        std::move(dictionary), hook_in, hook_out, options);
  };
  return question;
}

AblateAnswer AnswerAblate(const Question& question, Answered answered) {
  AblateAnswer answer;
  const Records& records = answered.records;
  std::vector<int32_t> prompts, positions;
  for (size_t i = 0; i < records.size(); ++i) {
    prompts.insert(prompts.end(), (*records[i])[0].shape[0],
                   static_cast<int32_t>(i));
    positions.push_back(
        static_cast<int32_t>(question.sequences[i]->positions[0]));
  }
  answer.prompt = Int32Array(prompts);
  answer.position = Int32Array(positions);
  size_t next = 0;
  for (Array* array : {&answer.latent, &answer.activation, &answer.loss,
                       &answer.logprob, &answer.rank}) {
    *array = Concatenate(records, next++);
  }
  for (Array* array :
       {&answer.base_loss, &answer.base_logprob, &answer.base_rank}) {
    *array = Stack(records, next++);
  }
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
