#include "server/service/weights_conversion.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/prompt_conversion.h"
#include "server/service/tensor_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using Request = v1::LatentWeightsRequest;

absl::StatusOr<analysis::LatentSide> ToSide(v1::LatentSide side) {
  switch (side) {
    case v1::LATENT_SIDE_UNSPECIFIED:
    case v1::DECODER:
      return analysis::LatentSide::kDecoder;
    case v1::ENCODER:
      return analysis::LatentSide::kEncoder;
    default:
      return InvalidArgumentError(StrCat("side is ", static_cast<int>(side),
                                         "; accepted: DECODER, ENCODER or "
                                         "unset"));
  }
}

absl::StatusOr<analysis::LatentQuery> ToQuery(Request::Nearest* nearest) {
  analysis::NearestQuery query;
  ASSIGN_OR_RETURN(query.side, ToSide(nearest->side()));
  query.latents = ToIndices(nearest->latents());
  query.top_k = nearest->top_k();
  if (nearest->has_vectors()) {
    ASSIGN_OR_RETURN(query.vectors,
                     TakeArray(nearest->mutable_vectors(), "nearest.vectors",
                               storage::DType::kFloat32, 2));
    RETURN_IF_ERROR(CheckFinite(query.vectors, "nearest.vectors"));
  }
  return query;
}

absl::StatusOr<analysis::LatentQuery> ToQuery(const Request::Gram& gram) {
  analysis::GramQuery query;
  ASSIGN_OR_RETURN(query.side, ToSide(gram.side()));
  query.latents = ToIndices(gram.latents());
  query.normalize = !gram.inner_products();
  query.threshold = gram.threshold();
  if (!std::isfinite(query.threshold) || query.threshold < 0) {
    return InvalidArgumentError(StrCat("gram.threshold is ", query.threshold,
                                       "; accepted: finite and >= 0"));
  }
  return query;
}

absl::StatusOr<analysis::LatentQuery> ToQuery(Request* request) {
  switch (request->question_case()) {
    case Request::kNearest:
      return ToQuery(request->mutable_nearest());
    case Request::kTokens: {
      const Request::Tokens& tokens = request->tokens();
      return analysis::TokensQuery{.latents = ToIndices(tokens.latents()),
                                   .top = tokens.top(),
                                   .bottom = tokens.bottom(),
                                   .gain = !tokens.without_gain()};
    }
    case Request::kLogits: {
      const Request::Logits& logits = request->logits();
      return analysis::LogitsQuery{.tokens = ToIndices(logits.tokens()),
                                   .incorrect = ToIndices(logits.incorrect()),
                                   .gain = !logits.without_gain()};
    }
    case Request::kGram:
      return ToQuery(request->gram());
    case Request::kLogitWeights: {
      const Request::LogitWeights& weights = request->logit_weights();
      analysis::LogitWeightsQuery query;
      query.latents = ToIndices(weights.latents());
      query.options.top = weights.top();
      query.options.bottom = weights.bottom();
      if (weights.bins() != 0) query.options.bins = weights.bins();
      query.options.gain = !weights.without_gain();
      return query;
    }
    case Request::QUESTION_NOT_SET:
      break;
  }
  return InvalidArgumentError(
      "the request has no question; accepted: nearest, tokens, logits, gram or "
      "logit_weights");
}

}  // namespace

absl::StatusOr<engine::WeightRequest> FromProto(v1::WeightRequest request) {
  engine::WeightRequest plain;
  switch (request.owner_case()) {
    case v1::WeightRequest::kModel:
      RETURN_IF_ERROR(CheckName(request.model(), "model"));
      plain.model = std::move(*request.mutable_model());
      break;
    case v1::WeightRequest::kDictionary:
      RETURN_IF_ERROR(CheckName(request.dictionary(), "dictionary"));
      plain.dictionary = std::move(*request.mutable_dictionary());
      break;
    case v1::WeightRequest::OWNER_NOT_SET:
      return InvalidArgumentError(
          "the request has no owner; accepted: model or dictionary");
  }
  RETURN_IF_ERROR(CheckName(request.name(), "name"));
  plain.name = std::move(*request.mutable_name());
  plain.rows = ToIndices(request.rows());
  plain.columns = ToIndices(request.columns());
  ASSIGN_OR_RETURN(plain.processing,
                   ProcessingFromProto(request.processing(), "processing"));
  return plain;
}

absl::StatusOr<engine::LatentWeightsRequest> FromProto(
    v1::LatentWeightsRequest request) {
  engine::LatentWeightsRequest plain;
  RETURN_IF_ERROR(CheckName(request.dictionary(), "dictionary"));
  ASSIGN_OR_RETURN(plain.query, ToQuery(&request));
  plain.dictionary = std::move(*request.mutable_dictionary());
  ASSIGN_OR_RETURN(plain.processing,
                   ProcessingFromProto(request.processing(), "processing"));
  return plain;
}

StreamedAnswer<v1::WeightResponse> ToProto(engine::WeightAnswer answer,
                                           double total_seconds) {
  StreamedAnswer<v1::WeightResponse> streamed;
  v1::WeightResponse::Header* header = streamed.first.mutable_header();
  header->set_name(std::move(answer.name));
  TensorCollector tensors;
  tensors.Add(std::move(answer.values), header->mutable_values());
  tensors.Add(std::move(answer.shape), header->mutable_shape());
  return Finish(std::move(streamed), &tensors, answer.provenance,
                total_seconds);
}

StreamedAnswer<v1::LatentWeightsResponse> ToProto(
    engine::LatentWeightsAnswer answer, double total_seconds) {
  StreamedAnswer<v1::LatentWeightsResponse> streamed;
  v1::LatentWeightsResponse::Header* header = streamed.first.mutable_header();
  TensorCollector tensors;
  tensors.Add(std::move(answer.indices), header->mutable_indices());
  tensors.Add(std::move(answer.values), header->mutable_values());
  tensors.Add(std::move(answer.histogram), header->mutable_histogram());
  tensors.Add(std::move(answer.ends), header->mutable_ends());
  return Finish(std::move(streamed), &tensors, answer.provenance,
                total_seconds);
}

}  // namespace cupola::service
