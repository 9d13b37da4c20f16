#include "server/engine/ask_reconstruct.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/reconstruct.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using storage::DType;

// Row pointers, indices and values of features that a client sends back.
absl::Status CheckFeatures(const SparseArrays& features, int64_t d_sae,
                           const Limits& limits) {
  const auto is = [](const Array& array, DType dtype) {
    return array.dtype == dtype && array.shape.size() == 1;
  };
  if (!is(features.indptr, DType::kInt64) || features.indptr.shape[0] < 2 ||
      !is(features.indices, DType::kUInt32) ||
      !is(features.values, DType::kFloat32) ||
      features.indices.shape != features.values.shape) {
    return absl::InvalidArgumentError(
        "features must hold indptr INT64 [rows + 1] with rows >= 1, indices "
        "UINT32 [entries] and values FLOAT32 [entries]");
  }
  if (features.columns != d_sae) {
    return absl::InvalidArgumentError(absl::StrCat(
        "features has ", features.columns, " columns; d_sae is ", d_sae));
  }
  const int64_t rows = features.indptr.shape[0] - 1;
  const int64_t entries = features.indices.shape[0];
  if (rows > limits.max_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("features holds ", rows, " rows; one request takes ",
                     limits.max_tokens));
  }
  std::vector<int64_t> indptr(rows + 1);
  std::memcpy(indptr.data(), features.indptr.bytes.data(),
              features.indptr.bytes.size());
  if (indptr.front() != 0 || indptr.back() != entries ||
      !std::is_sorted(indptr.begin(), indptr.end())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "features.indptr must ascend from 0 to the number of entries, ",
        entries));
  }
  for (int64_t i = 0; i < entries; ++i) {
    uint32_t index;
    float value;
    std::memcpy(&index, features.indices.bytes.data() + i * 4, 4);
    std::memcpy(&value, features.values.bytes.data() + i * 4, 4);
    if (index >= d_sae) {
      return absl::InvalidArgumentError(
          absl::StrCat("features.indices[", i, "] is ", index,
                       ", not below d_sae = ", d_sae));
    }
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("features.values[", i, "] is ", value));
    }
  }
  return absl::OkStatus();
}

absl::Status AddFeatures(const ReconstructRequest& request,
                         const dictionary::Manifest& manifest,
                         const Limits& limits, Question& question) {
  if (manifest.skip ||
      manifest.normalize == dictionary::Normalize::kLayerNorm ||
      manifest.normalize == dictionary::Normalize::kConstantNormRescale) {
    return absl::InvalidArgumentError(
        "features: this dictionary's decoder also reads its input (a skip "
        "connection or a per-token normalization); give prompts or inputs");
  }
  if (request.positions.kind != Positions::Kind::kAll ||
      request.processing.has_value()) {
    return absl::InvalidArgumentError(
        "positions and processing do not apply to features");
  }
  RETURN_IF_ERROR(CheckFeatures(*request.features, manifest.d_sae, limits));
  auto features = std::make_shared<const std::vector<Array>>(
      std::vector<Array>{request.features->indptr, request.features->indices,
                         request.features->values});
  question.identity = analysis::DecodeAnalysis::Identity(
      question.provenance.dictionary_digest, question.half, *features);
  question.needs_model = false;
  const int64_t rows = request.features->indptr.shape[0] - 1;
  RETURN_IF_ERROR(NoteAnswerBytes(
      4.0 * static_cast<double>(rows) * static_cast<double>(manifest.d_out),
      limits, question));
  const double entries =
      static_cast<double>(request.features->indices.shape[0]);
  question.work = {.flops = static_cast<double>(manifest.d_out) *
                            (2 * entries + static_cast<double>(rows))};
  AddEmptySequence(rows, question);
  question.bind = [features](DictionaryPtr dictionary) {
    return std::make_shared<analysis::DecodeAnalysis>(std::move(dictionary),
                                                      features);
  };
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Question> AskReconstruct(const ReconstructRequest& request,
                                        const Sources& sources,
                                        const Limits& limits) {
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kReconstruct));
  const dictionary::Manifest& manifest = sources.dictionary->manifest();
  if (request.features.has_value()) {
    RETURN_IF_ERROR(AddFeatures(request, manifest, limits, question));
    return question;
  }
  RETURN_IF_ERROR(AddInputsOrPrompts(request, sources, limits, question));
  // Reconstruction and target, float32.
  RETURN_IF_ERROR(NoteAnswerBytes(8.0 * RowCount(question) * manifest.d_out,
                                  limits, question));
  const auto [hook_in, hook_out] = HooksOf(question, sources);
  question.work = {
      .passes = ShareOfPass({hook_in, hook_out}, sources.model->config()),
      .flops_per_row = 2.0 * manifest.d_in * manifest.d_sae};
  question.identity = analysis::ReconstructAnalysis::Identity(
      question.provenance.dictionary_digest, question.half);
  question.bind = [in = hook_in, out = hook_out](DictionaryPtr dictionary) {
    return std::make_shared<analysis::ReconstructAnalysis>(
        std::move(dictionary), in, out);
  };
  return question;
}

ReconstructAnswer AnswerReconstruct(const Question& question,
                                    Answered answered) {
  ReconstructAnswer answer;
  answer.reconstruction = Concatenate(answered.records, 0);
  answer.target = Concatenate(answered.records, 1);
  answer.squared_error = Concatenate(answered.records, 2);
  answer.l0 = Concatenate(answered.records, 3);
  LabelRows(question, answer.prompt, answer.position);
  answer.fvu = analysis::FractionOfVarianceUnexplained(answered.records);
  const int64_t rows = answer.l0.shape[0];
  for (int64_t i = 0; i < rows; ++i) {
    float l0;
    std::memcpy(&l0, answer.l0.bytes.data() + i * sizeof(l0), sizeof(l0));
    answer.mean_l0 += l0;
  }
  answer.mean_l0 = rows > 0 ? answer.mean_l0 / rows
                            : std::numeric_limits<double>::quiet_NaN();
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
