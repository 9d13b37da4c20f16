#include "server/service/feature_statistics_conversion.h"

#include <utility>

#include "server/model/status_macros.h"
#include "server/service/corpus_request.h"
#include "server/service/jobs_conversion.h"

namespace cupola::service {

absl::StatusOr<engine::FeatureStatisticsRequest> FromProto(
    v1::FeatureStatisticsRequest request) {
  engine::FeatureStatisticsRequest plain;
  RETURN_IF_ERROR(TakeCorpus(&request, &plain));
  if (request.has_top_k()) plain.top_k = request.top_k();
  plain.distinct_rows = !request.repeat_rows();
  if (request.has_per_stratum()) plain.per_stratum = request.per_stratum();
  if (request.has_first_octave()) {
    plain.bins.first_octave = request.first_octave();
  }
  if (request.has_octaves()) plain.bins.octaves = request.octaves();
  if (request.has_log2_per_octave()) {
    plain.bins.log2_per_octave = request.log2_per_octave();
  }
  plain.chunk_tokens = request.chunk_tokens();
  return plain;
}

absl::StatusOr<engine::FeatureStatisticsQuery> FromProto(
    const v1::GetFeatureStatisticsRequest& request) {
  engine::FeatureStatisticsQuery plain;
  plain.job = request.job();
  plain.dictionary = request.dictionary();
  plain.first = request.first();
  plain.count = request.count();
  plain.histogram = request.histogram();
  plain.top = request.top();
  plain.intervals = request.intervals();
  plain.each = request.each();
  return plain;
}

StreamedAnswer<v1::GetFeatureStatisticsResponse> ToProto(
    engine::FeatureStatisticsAnswer answer, const engine::JobInfo& job) {
  StreamedAnswer<v1::GetFeatureStatisticsResponse> streamed;
  auto* header = streamed.first.mutable_header();
  header->set_tokens(answer.tokens);
  header->set_d_sae(answer.d_sae);
  header->set_dead(answer.dead);
  header->set_first(answer.first);
  TensorCollector tensors;
  tensors.Add(std::move(answer.count), header->mutable_count());
  tensors.Add(std::move(answer.density), header->mutable_density());
  tensors.Add(std::move(answer.mean), header->mutable_mean());
  tensors.Add(std::move(answer.powers), header->mutable_powers());
  tensors.Add(std::move(answer.max), header->mutable_max());
  tensors.Add(std::move(answer.histogram), header->mutable_histogram());
  tensors.Add(std::move(answer.edges), header->mutable_edges());
  tensors.Add(std::move(answer.top_row), header->mutable_top_row());
  tensors.Add(std::move(answer.top_position), header->mutable_top_position());
  tensors.Add(std::move(answer.top_value), header->mutable_top_value());
  tensors.Add(std::move(answer.interval_row), header->mutable_interval_row());
  tensors.Add(std::move(answer.interval_position),
              header->mutable_interval_position());
  tensors.Add(std::move(answer.interval_value),
              header->mutable_interval_value());
  *header->mutable_job() = ToProto(job);
  streamed.pieces = tensors.Finish();
  return streamed;
}

}  // namespace cupola::service
