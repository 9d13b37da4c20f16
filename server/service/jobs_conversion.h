#ifndef CUPOLA_SERVER_SERVICE_JOBS_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_JOBS_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/jobs.pb.h"
#include "server/engine/accumulate_jacobian.h"
#include "server/engine/jobs.h"
#include "server/service/answer_conversion.h"

// proto/cupola/v1/jobs.proto <-> plain structs; see request_conversion.h.

namespace cupola::service {

v1::JobProvenance ToProto(const engine::JobProvenance& provenance);
v1::Job ToProto(const engine::JobInfo& info);

absl::StatusOr<engine::JobOptions> FromProto(const v1::JobOptions& options);

absl::StatusOr<engine::AccumulateJacobianRequest> FromProto(
    v1::AccumulateJacobianRequest request);
absl::StatusOr<engine::JacobianTotalsRequest> FromProto(
    const v1::JacobianTotalsRequest& request);

v1::ShardHeader ToProto(const engine::ExportedShard& shard);
// But for the path.
engine::ReceivedShard FromProto(const v1::ShardHeader& header);

StreamedAnswer<v1::JacobianTotalsResponse> ToProto(
    engine::JacobianTotalsAnswer answer, const engine::JobInfo& job);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_JOBS_CONVERSION_H_
