#include "server/service/upload_call.h"

#include <string>
#include <utility>
#include <variant>

#include "cupola/v1/catalog.pb.h"
#include "server/model/status_macros.h"
#include "server/service/catalog_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;

}  // namespace

UploadCall::UploadCall(const Environment& environment,
                       std::unique_ptr<RequestScope> scope,
                       grpc::ByteBuffer* response)
    : environment_(environment), scope_(std::move(scope)), response_(response) {
  if (!scope_->admitted().ok()) {
    End(scope_->admitted());
  } else if (environment_.registry == nullptr) {
    End(absl::FailedPreconditionError("this server takes no uploads"));
  } else {
    StartRead(&message_);
  }
}

void UploadCall::End(const absl::Status& status) {
  upload_ = nullptr;
  Finish(scope_->End(status));
}

void UploadCall::OnReadDone(bool ok) {
  if (!ok) {
    const absl::Status wanted = scope_->StillWanted();
    End(!wanted.ok() ? wanted
                     : InvalidArgumentError(
                           "the call has ended without a sha256; nothing is "
                           "kept"));
    return;
  }
  environment_.executor->Run([this] {
    absl::StatusOr<bool> more = Handle();
    if (more.ok() && *more) {
      StartRead(&message_);
    } else {
      End(more.status());
    }
  });
}

absl::StatusOr<bool> UploadCall::Handle() {
  RETURN_IF_ERROR(scope_->StillWanted());
  v1::UploadDictionaryRequest request;
  RETURN_IF_ERROR(ParseMessage(message_, &request));
  message_.Clear();
  if (request.has_header() != (upload_ == nullptr)) {
    return InvalidArgumentError(
        upload_ == nullptr ? "header: it is not set; accepted: first of all"
                           : "header: it comes again; accepted: once");
  }
  switch (request.part_case()) {
    case v1::UploadDictionaryRequest::kHeader: {
      ASSIGN_OR_RETURN(upload_,
                       environment_.registry->BeginUpload(request.header()));
      scope_->notes().dictionary = upload_->entry.name();
      return true;
    }
    case v1::UploadDictionaryRequest::kPiece:
      RETURN_IF_ERROR(upload_->spool->Append(request.piece()));
      return true;
    case v1::UploadDictionaryRequest::kSha256:
      break;
    case v1::UploadDictionaryRequest::PART_NOT_SET:
      return InvalidArgumentError(
          "part: it is not set; accepted: a header, pieces, a sha256");
  }
  ASSIGN_OR_RETURN(const std::string name, environment_.registry->FinishUpload(
                                               *upload_, request.sha256()));
  ASSIGN_OR_RETURN(const engine::EntryStatus status,
                   environment_.engine->Describe(name));
  v1::DescribeResponse answer;
  // Another call may have put a model in its place since.
  if (const auto* dictionary = std::get_if<engine::DictionaryStatus>(&status)) {
    *answer.mutable_dictionary() = ToProto(*dictionary);
  }
  *response_ = SerializeMessage(answer);
  return false;
}

}  // namespace cupola::service
