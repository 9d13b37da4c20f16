#include "server/service/match_features_conversion.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/corpus_request.h"
#include "server/service/jobs_conversion.h"

namespace cupola::service {

absl::StatusOr<engine::MatchFeaturesRequest> FromProto(
    v1::MatchFeaturesRequest request) {
  engine::MatchFeaturesRequest plain;
  RETURN_IF_ERROR(TakeCorpus(&request, &plain));
  plain.min_activation = request.min_activation();
  if (request.has_float64()) plain.float64 = request.float64();
  plain.chunk_tokens = request.chunk_tokens();
  return plain;
}

absl::StatusOr<engine::FeatureMatchingQuery> FromProto(
    const v1::GetFeatureMatchingRequest& request) {
  engine::FeatureMatchingQuery plain;
  if (!v1::GetFeatureMatchingRequest::DeadPolicy_IsValid(
          request.dead_policy())) {
    return absl::InvalidArgumentError(
        absl::StrCat("dead_policy is ", static_cast<int>(request.dead_policy()),
                     "; accepted: UPSTREAM, CORRECT or unset"));
  }
  // Numbered alike.
  if (request.dead_policy() != 0) {
    plain.dead_policy =
        static_cast<analysis::DeadPolicy>(request.dead_policy());
  }
  plain.job = request.job();
  plain.other = request.other();
  plain.matching = request.matching();
  plain.thresholds = {request.thresholds().begin(), request.thresholds().end()};
  if (request.has_appearing_at()) plain.appearing_at = request.appearing_at();
  if (request.has_appearing_threshold()) {
    plain.appearing_threshold = request.appearing_threshold();
  }
  plain.rows = {request.rows().begin(), request.rows().end()};
  plain.top = request.top();
  return plain;
}

StreamedAnswer<v1::GetFeatureMatchingResponse> ToProto(
    engine::FeatureMatchingAnswer answer, const engine::JobInfo& job) {
  StreamedAnswer<v1::GetFeatureMatchingResponse> streamed;
  auto* header = streamed.first.mutable_header();
  header->set_tokens(answer.tokens);
  header->set_a_latents(answer.a_latents);
  header->set_b_latents(answer.b_latents);
  header->set_counted(answer.counted);
  header->set_float64(answer.float64);
  TensorCollector tensors;
  tensors.Add(std::move(answer.matched), header->mutable_matched());
  tensors.Add(std::move(answer.distances), header->mutable_distances());
  tensors.Add(std::move(answer.fractions), header->mutable_fractions());
  tensors.Add(std::move(answer.appearing), header->mutable_appearing());
  tensors.Add(std::move(answer.cosines), header->mutable_cosines());
  tensors.Add(std::move(answer.alike), header->mutable_alike());
  *header->mutable_job() = ToProto(job);
  streamed.pieces = tensors.Finish();
  return streamed;
}

}  // namespace cupola::service
