#ifndef CUPOLA_SERVER_SERVICE_DATASETS_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_DATASETS_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/datasets.pb.h"
#include "server/engine/datasets.h"
#include "server/engine/job_rows.h"

// proto/cupola/v1/datasets.proto <-> plain structs; see request_conversion.h.

namespace cupola::service {

absl::StatusOr<engine::Tokenization> FromProto(
    const v1::Tokenization& tokenization);
v1::Tokenization ToProto(const engine::Tokenization& how);

// As a job's request names them: no model is the dictionary's.
absl::StatusOr<engine::DatasetRows> FromProto(const v1::DatasetRows& rows);

// Moves the documents out of the message. INVALID_ARGUMENT: both texts and
// tokens, or an id above an int32.
absl::StatusOr<engine::Documents> TakeDocuments(
    v1::UploadDatasetRequest::Rows* rows);

v1::TokenizedDataset ToProto(const engine::TokenizedInfo& info);
v1::Dataset ToProto(const engine::DatasetInfo& info);
v1::DatasetRowsResponse ToProto(engine::ReadDatasetAnswer answer);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_DATASETS_CONVERSION_H_
