#ifndef CUPOLA_SERVER_SERVICE_STORES_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_STORES_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/stores.pb.h"
#include "server/engine/activation_stores.h"
#include "server/engine/store_activations_job.h"
#include "server/service/answer_conversion.h"

// proto/cupola/v1/stores.proto <-> plain structs; see request_conversion.h.

namespace cupola::service {

absl::StatusOr<engine::StoreActivationsRequest> FromProto(
    v1::StoreActivationsRequest request);
engine::ReadStoreRequest FromProto(const v1::ReadStoreRequest& request);

v1::Store ToProto(const engine::StoreInfo& info);
StreamedAnswer<v1::ReadStoreResponse> ToProto(engine::ReadStoreAnswer answer);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_STORES_CONVERSION_H_
