#ifndef CUPOLA_SERVER_SERVICE_MATCH_FEATURES_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_MATCH_FEATURES_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/jobs.pb.h"
#include "server/engine/jobs.h"
#include "server/engine/match_features_job.h"
#include "server/service/answer_conversion.h"

// The matching of features of proto/cupola/v1/jobs.proto <-> plain structs; see
// request_conversion.h.

namespace cupola::service {

absl::StatusOr<engine::MatchFeaturesRequest> FromProto(
    v1::MatchFeaturesRequest request);
absl::StatusOr<engine::FeatureMatchingQuery> FromProto(
    const v1::GetFeatureMatchingRequest& request);

StreamedAnswer<v1::GetFeatureMatchingResponse> ToProto(
    engine::FeatureMatchingAnswer answer, const engine::JobInfo& job);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_MATCH_FEATURES_CONVERSION_H_
