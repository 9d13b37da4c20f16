#ifndef CUPOLA_SERVER_SERVICE_FEATURE_STATISTICS_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_FEATURE_STATISTICS_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/jobs.pb.h"
#include "server/engine/feature_statistics_job.h"
#include "server/engine/jobs.h"
#include "server/service/answer_conversion.h"

// The feature statistics of proto/cupola/v1/jobs.proto <-> plain structs; see
// request_conversion.h.

namespace cupola::service {

absl::StatusOr<engine::FeatureStatisticsRequest> FromProto(
    v1::FeatureStatisticsRequest request);
absl::StatusOr<engine::FeatureStatisticsQuery> FromProto(
    const v1::GetFeatureStatisticsRequest& request);

StreamedAnswer<v1::GetFeatureStatisticsResponse> ToProto(
    engine::FeatureStatisticsAnswer answer, const engine::JobInfo& job);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_FEATURE_STATISTICS_CONVERSION_H_
