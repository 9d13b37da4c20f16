#ifndef CUPOLA_SERVER_SERVICE_DIRECTION_STATISTICS_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_DIRECTION_STATISTICS_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/jobs.pb.h"
#include "server/engine/direction_statistics_job.h"
#include "server/engine/jobs.h"
#include "server/service/answer_conversion.h"

// The direction statistics of proto/cupola/v1/jobs.proto <-> plain structs; see
// request_conversion.h.

namespace cupola::service {

absl::StatusOr<engine::DirectionStatisticsRequest> FromProto(
    v1::DirectionStatisticsRequest request);
absl::StatusOr<engine::DirectionStatisticsQuery> FromProto(
    const v1::GetDirectionStatisticsRequest& request);

StreamedAnswer<v1::GetDirectionStatisticsResponse> ToProto(
    engine::DirectionStatisticsAnswer answer, const engine::JobInfo& job);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_DIRECTION_STATISTICS_CONVERSION_H_
