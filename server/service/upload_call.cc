#include "server/service/upload_call.h"

#include <atomic>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "cupola/v1/catalog.pb.h"
#include "server/model/status_macros.h"
#include "server/service/catalog_conversion.h"

namespace cupola::service {
namespace {

using absl::InvalidArgumentError;

// How often the time is looked at while a client sends nothing.
constexpr absl::Duration kLookEvery = absl::Milliseconds(200);
// And how long it may do so while the server drains.
constexpr absl::Duration kDrainIdle = absl::Seconds(1);

}  // namespace

// Whether the client sends.
struct UploadCall::Watch {
  // By whom the read that runs is ended: its reaction, or the alarm, which then
  // ends the call.
  std::atomic<bool> claimed{false};
  absl::Mutex mu;
  UploadCall* call ABSL_GUARDED_BY(mu) = nullptr;  // null once it ends
  absl::Time since ABSL_GUARDED_BY(mu);            // the read began
  // Null when none is set: its callback holds this.
  std::unique_ptr<grpc::Alarm> alarm ABSL_GUARDED_BY(mu);
};

UploadCall::UploadCall(const Environment& environment,
                       std::unique_ptr<RequestScope> scope,
                       grpc::ByteBuffer* response)
    : environment_(environment),
      scope_(std::move(scope)),
      response_(response),
      watch_(std::make_shared<Watch>()) {
  if (!scope_->admitted().ok()) {
    End(scope_->admitted());
  } else if (environment_.registry == nullptr) {
    End(absl::FailedPreconditionError("this server takes no uploads"));
  } else {
    {
      absl::MutexLock lock(&watch_->mu);
      watch_->call = this;
      SetAlarm(watch_);
    }
    Read();
  }
}

void UploadCall::SetAlarm(const std::shared_ptr<Watch>& watch) {
  const auto ring = [watch](bool /*rang*/) {
    absl::MutexLock lock(&watch->mu);
    watch->alarm = nullptr;
    UploadCall* const call = watch->call;
    if (call == nullptr) return;
    const absl::Duration limit = call->environment_.registry->idle_limit();
    const absl::Duration idle = absl::Now() - watch->since;
    absl::Status end;
    if (idle >= limit) {
      end = absl::DeadlineExceededError(
          absl::StrCat("nothing has come for ", absl::FormatDuration(limit),
                       "; nothing is kept"));
    } else if (call->environment_.gate->shut() && idle >= kDrainIdle) {
      end = ShuttingDown();
    }
    if (!end.ok() && !watch->claimed.exchange(true)) {
      call->environment_.registry->Run([call, end] { call->End(end); });
    } else {
      SetAlarm(watch);
    }
  };
  watch->alarm = std::make_unique<grpc::Alarm>();
  watch->alarm->Set(absl::ToChronoTime(absl::Now() + kLookEvery), ring);
}

void UploadCall::Read() {
  {
    absl::MutexLock lock(&watch_->mu);
    watch_->since = absl::Now();
    watch_->claimed = false;
  }
  StartRead(&message_);
}

void UploadCall::End(const absl::Status& status) {
  {
    absl::MutexLock lock(&watch_->mu);
    watch_->call = nullptr;
  }
  upload_ = nullptr;
  Finish(scope_->End(status));
}

void UploadCall::OnReadDone(bool ok) {
  if (watch_->claimed.exchange(true)) return;
  environment_.registry->Run([this, ok] {
    absl::StatusOr<bool> more = ok ? Handle() : Broken();
    more.ok() && *more ? Read() : End(more.status());
  });
}

absl::Status UploadCall::Broken() const {
  RETURN_IF_ERROR(scope_->StillWanted());
  return InvalidArgumentError(
      "the call has ended without a sha256; nothing is kept");
}

absl::StatusOr<bool> UploadCall::Handle() {
  RETURN_IF_ERROR(scope_->StillWanted());
  scope_->CountBytes(message_.Length());
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
  ASSIGN_OR_RETURN(const std::string name,
                   environment_.registry->FinishUpload(
                       *upload_, request.sha256(), scope_->context()));
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
