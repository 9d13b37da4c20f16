#include "server/engine/ask_weights.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/analysis/residual_writes.h"
#include "server/analysis/tensor_io.h"
#include "server/analysis/weight_entries.h"
#include "server/dictionary/named_tensors.h"
#include "server/model/named_weights.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

constexpr int64_t kDefaultNeighbours = 10;

absl::Status CheckIndices(const std::vector<int64_t>& indices, int64_t size,
                          absl::string_view field) {
  // Repeating an axis would make a tensor larger than it is on the way.
  if (static_cast<int64_t>(indices.size()) > size) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, " has ", indices.size(), " indices; accepted: at most ", size));
  }
  for (int64_t index : indices) {
    if (index < 0 || index >= size) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": ", index, " is not in 0 to ", size - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSelection(const analysis::EntrySelection& selection,
                            const std::vector<int64_t>& shape,
                            const Limits& limits, Question& question) {
  RETURN_IF_ERROR(CheckIndices(selection.rows, shape.front(), "rows"));
  if (shape.size() == 1 && !selection.columns.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("columns: this weight has one axis, [", shape[0],
                     "]; rows select from it"));
  }
  RETURN_IF_ERROR(CheckIndices(selection.columns, shape.back(), "columns"));
  double bytes = sizeof(float);
  for (int64_t size : selection.ShapeOf(shape)) bytes *= size;
  question.work = {.flops = bytes};
  return NoteAnswerBytes(bytes, limits, question);
}

absl::Status AskModelWeight(const WeightRequest& request,
                            const analysis::EntrySelection& selection,
                            const Sources& sources, const Limits& limits,
                            Question& question) {
  const model::Processing processing =
      request.processing.value_or(model::Processing::kRaw);
  ASSIGN_OR_RETURN(model::NamedWeight weight,
                   model::FindNamedWeight(request.name, sources.model->config(),
                                          processing));
  RETURN_IF_ERROR(CheckSelection(selection, weight.shape, limits, question));
  question.labels = {weight.name};
  question.reads_files = true;
  question.provenance.processing = processing;
  const at::ScalarType dtype = analysis::ToScalarType(sources.dtype);
  question.identity = analysis::ModelWeightAnalysis::Identity(
      sources.model->digest(), processing, dtype, weight, selection);
  question.bind = [source = sources.model, processing, dtype, weight,
                   selection](DictionaryPtr) {
    return std::make_shared<analysis::ModelWeightAnalysis>(
        source, processing, dtype, weight, selection);
  };
  return absl::OkStatus();
}

absl::Status AskDictionaryTensor(const WeightRequest& request,
                                 const analysis::EntrySelection& selection,
                                 const Sources& sources, const Limits& limits,
                                 Question& question) {
  if (request.processing.has_value()) {
    return absl::InvalidArgumentError(
        "processing does not apply to a dictionary's tensors");
  }
  ASSIGN_OR_RETURN(const std::vector<int64_t> shape,
                   dictionary::NamedTensorShape(
                       request.name, sources.dictionary->manifest()));
  RETURN_IF_ERROR(CheckSelection(selection, shape, limits, question));
  question.labels = {request.name};
  storage::Digest content = question.provenance.dictionary_digest;
  if (request.name == "density") {
    // Its file is no part of the dictionary's digest.
    ASSIGN_OR_RETURN(const at::Tensor density,
                     sources.dictionary->ReadDensity(question.half));
    content =
        storage::Hasher("density/1")
            .AddBytes(
                analysis::ToArray(density, storage::DType::kFloat32).bytes)
            .Finish();
  }
  question.identity = analysis::DictionaryTensorAnalysis::Identity(
      content, question.half, request.name, selection);
  question.bind = [name = request.name, selection](DictionaryPtr dictionary) {
    return std::make_shared<analysis::DictionaryTensorAnalysis>(
        std::move(dictionary), name, selection);
  };
  return absl::OkStatus();
}

// Checks a query against its dictionary and model, and fills in defaults.
// Returns the values the answer holds.
struct Checking {
  const dictionary::Manifest& manifest;
  dictionary::Half half;
  const model::ModelConfig& config;

  absl::StatusOr<double> operator()(analysis::NearestQuery& query) const {
    const int64_t d_sae = manifest.d_sae;
    RETURN_IF_ERROR(CheckIndices(query.latents, d_sae, "latents"));
    const bool by_latent = !query.latents.empty();
    const bool by_vector = !query.vectors.shape.empty();
    if (by_latent == by_vector) {
      return absl::InvalidArgumentError(
          "nearest needs either latents or vectors");
    }
    if (by_vector) {
      const int64_t width = Width(query.side);
      if (query.vectors.shape.size() != 2 || query.vectors.shape[0] < 1 ||
          query.vectors.shape[1] != width) {
        return absl::InvalidArgumentError(absl::StrCat(
            "vectors has shape [", absl::StrJoin(query.vectors.shape, ", "),
            "]; accepted: [n >= 1, ", width, "]"));
      }
    }
    const int64_t others = by_latent ? d_sae - 1 : d_sae;
    if (query.top_k == 0) query.top_k = std::min(kDefaultNeighbours, others);
    if (query.top_k > others) {
      return absl::InvalidArgumentError(
          absl::StrCat("top_k is ", query.top_k, "; there are ", others,
                       " latents to choose from"));
    }
    const int64_t asked = by_latent ? static_cast<int64_t>(query.latents.size())
                                    : query.vectors.shape[0];
    return 2.0 * asked * query.top_k;
  }

  absl::StatusOr<double> operator()(analysis::TokensQuery& query) const {
    RETURN_IF_ERROR(CheckLatents(query.latents));
    if (query.top == 0 && query.bottom == 0) {
      query.top = query.bottom = std::min(kDefaultNeighbours, config.d_vocab);
    }
    if (std::max(query.top, query.bottom) > config.d_vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat(query.top > config.d_vocab ? "top is " : "bottom is ",
                       std::max(query.top, query.bottom),
                       "; the vocabulary has ", config.d_vocab, " tokens"));
    }
    return 2.0 * query.latents.size() * (query.top + query.bottom);
  }

  absl::StatusOr<double> operator()(analysis::LogitWeightsQuery& query) const {
    RETURN_IF_ERROR(CheckLatents(query.latents));
    const analysis::LogitWeightsOptions& options = query.options;
    RETURN_IF_ERROR(analysis::CheckOptions(options, config.d_vocab));
    return 2.0 * query.latents.size() *
           (options.top + options.bottom + options.bins + 1);
  }

  absl::StatusOr<double> operator()(analysis::LogitsQuery& query) const {
    if (query.tokens.empty()) {
      return absl::InvalidArgumentError("tokens is empty: give at least one");
    }
    if (!query.incorrect.empty() &&
        query.incorrect.size() != query.tokens.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("incorrect has ", query.incorrect.size(),
                       " tokens; accepted: none, or ", query.tokens.size(),
                       " as in tokens"));
    }
    RETURN_IF_ERROR(CheckIndices(query.tokens, config.d_vocab, "tokens"));
    RETURN_IF_ERROR(CheckIndices(query.incorrect, config.d_vocab, "incorrect"));
    return 1.0 * query.tokens.size() * manifest.d_sae;
  }

  absl::StatusOr<double> operator()(analysis::GramQuery& query) const {
    RETURN_IF_ERROR(CheckLatents(query.latents));
    return 1.0 * query.latents.size() * query.latents.size();
  }

 private:
  int64_t Width(analysis::LatentSide side) const {
    return side == analysis::LatentSide::kDecoder ? manifest.d_out
                                                  : manifest.d_in;
  }
  absl::Status CheckLatents(const std::vector<int64_t>& latents) const {
    if (latents.empty()) {
      return absl::InvalidArgumentError("latents is empty: give at least one");
    }
    return CheckIndices(latents, manifest.d_sae, "latents");
  }
};

}  // namespace

absl::StatusOr<Question> AskWeight(const WeightRequest& request,
                                   const Sources& sources,
                                   const Limits& limits) {
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kWeight));
  AddEmptySequence(/*rows=*/1, question);
  question.needs_model = false;
  const analysis::EntrySelection selection{request.rows, request.columns};
  const absl::Status asked =
      sources.dictionary == nullptr
          ? AskModelWeight(request, selection, sources, limits, question)
          : AskDictionaryTensor(request, selection, sources, limits, question);
  if (!asked.ok()) return asked;
  return question;
}

WeightAnswer AnswerWeight(const Question& question, Answered answered) {
  WeightAnswer answer;
  answer.name = question.labels.front();
  answer.values = (*answered.records.front())[0];
  answer.shape = (*answered.records.front())[1];
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

absl::StatusOr<Question> AskLatentWeights(const LatentWeightsRequest& request,
                                          const Sources& sources,
                                          const Limits& limits) {
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kLatentWeights));
  const dictionary::Manifest& manifest = sources.dictionary->manifest();
  analysis::LatentQuery query = request.query;
  ASSIGN_OR_RETURN(
      const double values,
      std::visit(Checking{manifest, question.half, sources.model->config()},
                 query));
  RETURN_IF_ERROR(NoteAnswerBytes(4 * values, limits, question));
  question.work = {.flops = 2.0 * manifest.d_in * manifest.d_sae};
  const model::HookPoint hook_out = HooksOf(question, sources).second;
  question.needs_model = analysis::NeedsModel(query);
  if (question.needs_model) {
    RETURN_IF_ERROR(analysis::CheckWritesToResidual(hook_out, "dictionary"));
    question.provenance.processing =
        request.processing.value_or(manifest.processing);
  } else if (request.processing.has_value()) {
    return absl::InvalidArgumentError(
        "processing applies to questions about tokens only");
  }
  AddEmptySequence(/*rows=*/1, question);
  question.identity = analysis::LatentWeightsAnalysis::Identity(
      question.provenance.dictionary_digest, question.half, query);
  question.bind = [hook_out, query](DictionaryPtr dictionary) {
    return std::make_shared<analysis::LatentWeightsAnalysis>(
        std::move(dictionary), hook_out, query);
  };
  return question;
}

LatentWeightsAnswer AnswerLatentWeights(const Question& question,
                                        Answered answered) {
  LatentWeightsAnswer answer;
  const std::vector<Array>& record = *answered.records.front();
  answer.indices = record[0];
  answer.values = record[1];
  const bool summed_up = record.size() > 2;
  answer.histogram =
      summed_up ? record[2] : Array{storage::DType::kInt64, {0}, {}};
  answer.ends =
      summed_up ? record[3] : Array{storage::DType::kFloat32, {0}, {}};
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
