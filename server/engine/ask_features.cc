#include "server/engine/ask_features.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/features.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using storage::DType;

absl::StatusOr<dictionary::EncodeOptions> EncodeOptionsOf(
    const FeaturesRequest& request, int64_t d_sae) {
  dictionary::EncodeOptions options;
  for (uint32_t latent : request.latents) {
    if (latent >= d_sae) {
      return absl::InvalidArgumentError(
          absl::StrCat("latents: ", latent, " is not below d_sae = ", d_sae));
    }
    options.latents.push_back(static_cast<int32_t>(latent));
  }
  std::sort(options.latents.begin(), options.latents.end());
  options.latents.erase(
      std::unique(options.latents.begin(), options.latents.end()),
      options.latents.end());
  if (!(request.min_activation >= 0) ||
      !std::isfinite(request.min_activation)) {
    return absl::InvalidArgumentError(
        absl::StrCat("min_activation is ", request.min_activation,
                     "; it must be a finite number >= 0"));
  }
  options.min_activation = request.min_activation;
  options.top_k = std::min<int64_t>(request.top_k, d_sae);
  return options;
}

}  // namespace

absl::StatusOr<Question> AskFeatures(const FeaturesRequest& request,
                                     const Sources& sources,
                                     const Limits& limits) {
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kFeatures));
  const dictionary::Manifest& manifest = sources.dictionary->manifest();
  ASSIGN_OR_RETURN(dictionary::EncodeOptions options,
                   EncodeOptionsOf(request, manifest.d_sae));
  RETURN_IF_ERROR(AddInputsOrPrompts(request, sources, limits, question));
  question.identity = analysis::FeaturesAnalysis::Identity(
      question.provenance.dictionary_digest, question.half, options);
  const model::HookPoint hook = HooksOf(question, sources).first;
  double most = static_cast<double>(options.latents.size());
  if (options.top_k > 0) most = static_cast<double>(options.top_k);
  if (most == 0) most = MostActive(manifest, &question.answer_is_guessed);
  question.answer_bytes = RowCount(question) * (16 + 8 * most);
  question.work = {.passes = ShareOfPass({hook}, sources.model->config()),
                   .flops_per_row = 2.0 * manifest.d_in * manifest.d_sae};
  question.bind = [hook, options](DictionaryPtr dictionary) {
    return std::make_shared<analysis::FeaturesAnalysis>(std::move(dictionary),
                                                        hook, options);
  };
  return question;
}

FeaturesAnswer AnswerFeatures(const Question& question, Answered answered) {
  FeaturesAnswer answer;
  std::vector<const Array*> blocks;
  for (const auto& record : answered.records) blocks.push_back(record->data());
  answer.features = ConcatenateRows(blocks, question.d_sae);
  LabelRows(question, answer.prompt, answer.position);
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
