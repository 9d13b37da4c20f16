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

// CSR rows one below the other: the row pointers move by what came before.
SparseArrays ConcatenateRows(const Records& records, int64_t columns) {
  std::vector<int64_t> indptr = {0};
  for (const auto& record : records) {
    const Array& mine = record->front();
    const int64_t before = indptr.back();
    for (int64_t r = 1; r < mine.shape[0]; ++r) {
      int64_t end;
      std::memcpy(&end, mine.bytes.data() + r * sizeof(end), sizeof(end));
      indptr.push_back(before + end);
    }
  }
  SparseArrays rows;
  rows.indptr = {DType::kInt64, {static_cast<int64_t>(indptr.size())}, {}};
  rows.indptr.bytes.assign(reinterpret_cast<const char*>(indptr.data()),
                           indptr.size() * sizeof(int64_t));
  rows.indices = Concatenate(records, 1);
  rows.values = Concatenate(records, 2);
  rows.columns = columns;
  return rows;
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
  question.bind = [hook, options](DictionaryPtr dictionary) {
    return std::make_shared<analysis::FeaturesAnalysis>(std::move(dictionary),
                                                        hook, options);
  };
  return question;
}

FeaturesAnswer AnswerFeatures(const Question& question, Answered answered) {
  FeaturesAnswer answer;
  answer.features = ConcatenateRows(answered.records, question.d_sae);
  LabelRows(question, answer.prompt, answer.position);
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
