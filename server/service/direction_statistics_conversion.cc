#include "server/service/direction_statistics_conversion.h"

#include <utility>

#include "server/model/status_macros.h"
#include "server/service/attribution_conversion.h"
#include "server/service/corpus_request.h"
#include "server/service/jobs_conversion.h"

namespace cupola::service {

absl::StatusOr<engine::DirectionStatisticsRequest> FromProto(
    v1::DirectionStatisticsRequest request) {
  engine::DirectionStatisticsRequest plain;
  RETURN_IF_ERROR(TakeCorpus(&request, &plain));
  if (request.has_position()) plain.position = request.position();
  if (request.has_top_k()) plain.top_k = request.top_k();
  if (request.has_active_above()) plain.active_above = request.active_above();
  if (request.has_rows_per_latent()) {
    plain.rows_per_latent = request.rows_per_latent();
  }
  if (request.has_mean_rows()) plain.mean_rows = request.mean_rows();
  plain.ablate = !request.without_ablation();
  plain.ablate_latents.assign(request.ablate_latents().begin(),
                              request.ablate_latents().end());
  plain.losses = !request.without_losses();
  plain.directions.assign(request.directions().begin(),
                          request.directions().end());
  if (request.attribution() != v1::COMPONENT_LEVEL_UNSPECIFIED) {
    ASSIGN_OR_RETURN(plain.attribution, ToLevel(request.attribution()));
  }
  plain.boost_rows = request.boost_rows();
  plain.chunk_rows = request.chunk_rows();
  return plain;
}

absl::StatusOr<engine::DirectionStatisticsQuery> FromProto(
    const v1::GetDirectionStatisticsRequest& request) {
  engine::DirectionStatisticsQuery plain;
  plain.job = request.job();
  plain.table = request.table();
  if (request.has_share_of_max()) plain.share_of_max = request.share_of_max();
  if (request.has_min_share()) plain.min_share = request.min_share();
  if (request.has_max_latents()) plain.max_latents = request.max_latents();
  plain.latents.assign(request.latents().begin(), request.latents().end());
  plain.boosts = request.boosts();
  if (request.has_min_logprob()) plain.min_logprob = request.min_logprob();
  plain.min_count = request.min_count();
  return plain;
}

StreamedAnswer<v1::GetDirectionStatisticsResponse> ToProto(
    engine::DirectionStatisticsAnswer answer, const engine::JobInfo& job) {
  StreamedAnswer<v1::GetDirectionStatisticsResponse> streamed;
  auto* header = streamed.first.mutable_header();
  header->set_rows(answer.rows);
  header->set_d_sae(answer.d_sae);
  header->set_loss_rows(answer.loss_rows);
  header->set_attribution_rows(answer.attribution_rows);
  header->set_boost_rows(answer.boost_rows);
  for (std::string& component : answer.components) {
    header->add_components(std::move(component));
  }
  TensorCollector tensors;
  const auto add = [&tensors](engine::Array& array, v1::Tensor* tensor) {
    tensors.Add(std::move(array), tensor);
  };
  add(answer.latent, header->mutable_latent());
  add(answer.loss_increase, header->mutable_loss_increase());
  add(answer.loss_increase_encoded, header->mutable_loss_increase_encoded());
  add(answer.mean_activation, header->mutable_mean_activation());
  add(answer.share_active, header->mutable_share_active());
  add(answer.ablated, header->mutable_ablated());
  add(answer.count, header->mutable_count());
  add(answer.largest, header->mutable_largest());
  add(answer.top_row, header->mutable_top_row());
  add(answer.top_position, header->mutable_top_position());
  add(answer.top_value, header->mutable_top_value());
  add(answer.active_indptr, header->mutable_active_indptr());
  add(answer.active_row, header->mutable_active_row());
  add(answer.active_position, header->mutable_active_position());
  add(answer.activation, header->mutable_activation());
  add(answer.active_increase, header->mutable_active_increase());
  add(answer.active_encoded, header->mutable_active_encoded());
  add(answer.losses, header->mutable_losses());
  add(answer.increases, header->mutable_increases());
  add(answer.deviations, header->mutable_deviations());
  add(answer.attribution, header->mutable_attribution());
  add(answer.boosted_tokens, header->mutable_boosted_tokens());
  add(answer.boost, header->mutable_boost());
  add(answer.deboosted_tokens, header->mutable_deboosted_tokens());
  add(answer.deboost, header->mutable_deboost());
  *header->mutable_job() = ToProto(job);
  streamed.pieces = tensors.Finish();
  return streamed;
}

}  // namespace cupola::service
