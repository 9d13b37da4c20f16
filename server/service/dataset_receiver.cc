#include "server/service/dataset_receiver.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cupola/v1/datasets.pb.h"
#include "server/model/status_macros.h"
#include "server/service/datasets_conversion.h"
#include "server/service/wire.h"

namespace cupola::service {
namespace {

constexpr int64_t kMaxKeepSeconds = int64_t{100} * 365 * 86400;

}  // namespace

absl::StatusOr<std::optional<grpc::ByteBuffer>> DatasetReceiver::Take(
    const grpc::ByteBuffer& message) {
  v1::UploadDatasetRequest request;
  RETURN_IF_ERROR(ParseMessage(message, &request));
  if (request.has_header() != (upload_ == nullptr)) {
    return absl::InvalidArgumentError(
        upload_ == nullptr ? "header: it is not set; accepted: first of all"
                           : "header: it comes again; accepted: once");
  }
  switch (request.part_case()) {
    case v1::UploadDatasetRequest::kHeader: {
      const int64_t keep = request.header().keep_seconds();
      if (keep < 0 || keep > kMaxKeepSeconds) {
        return absl::InvalidArgumentError(
            absl::StrCat("header.keep_seconds is ", keep, "; accepted: 0 to ",
                         kMaxKeepSeconds));
      }
      ASSIGN_OR_RETURN(upload_, datasets_->Begin(request.header().name(),
                                                 absl::Seconds(keep), sender_));
      return std::nullopt;
    }
    case v1::UploadDatasetRequest::kRows: {
      ASSIGN_OR_RETURN(const engine::Documents documents,
                       TakeDocuments(request.mutable_rows()));
      RETURN_IF_ERROR(upload_->Append(documents));
      return std::nullopt;
    }
    case v1::UploadDatasetRequest::kSha256:
      break;
    case v1::UploadDatasetRequest::PART_NOT_SET:
      return absl::InvalidArgumentError(
          "part: it is not set; accepted: a header, rows, a sha256");
  }
  ASSIGN_OR_RETURN(const engine::DatasetInfo info,
                   upload_->Finish(request.sha256()));
  return SerializeMessage(ToProto(info));
}

void DatasetReceiver::Finish(const engine::RequestContext& /*context*/,
                             Done done) {
  done(absl::InvalidArgumentError(
      "sha256: the call has ended without one; nothing is kept"));
}

}  // namespace cupola::service
