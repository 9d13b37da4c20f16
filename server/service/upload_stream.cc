#include "server/service/upload_stream.h"

#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/model/torch_status.h"

namespace cupola::service {
namespace {

constexpr absl::Duration kIdle = absl::Minutes(1);

}  // namespace

UploadStream::UploadStream(engine::Executor* disk,
                           std::unique_ptr<RequestScope> scope,
                           grpc::CallbackServerContext* context,
                           grpc::ByteBuffer* response,
                           std::unique_ptr<UploadReceiver> receiver)
    : disk_(disk),
      scope_(std::move(scope)),
      response_(response),
      receiver_(std::move(receiver)) {
  {
    absl::MutexLock lock(&link_->mu);
    link_->context = context;
  }
  if (scope_->admitted().ok()) {
    ReadNext();
  } else {
    End(scope_->admitted());
  }
}

void UploadStream::ReadNext() {
  idle_ = std::make_unique<grpc::Alarm>();
  idle_->Set(absl::ToChronoTime(absl::Now() + kIdle),
             [link = link_](bool rang) {
               absl::MutexLock lock(&link->mu);
               if (rang && link->context != nullptr) {
                 link->context->TryCancel();
               }
             });
  StartRead(&message_);
}

void UploadStream::OnReadDone(bool ok) {
  idle_->Cancel();
  disk_->Run([this, ok] {
    if (absl::Status wanted = scope_->StillWanted(); !wanted.ok()) {
      End(wanted);
    } else if (ok) {
      TakeMessage();
    } else {
      receiver_->Finish(scope_->context(),
                        [this](absl::StatusOr<grpc::ByteBuffer> answer) {
                          End(std::move(answer));
                        });
    }
  });
}

void UploadStream::TakeMessage() {
  scope_->CountBytes(message_.Length());
  // What a message may take in memory is not known before it is parsed.
  auto answer = model::CatchTorch("receiving",
                                  [this] { return receiver_->Take(message_); });
  message_.Clear();
  if (!answer.ok()) {
    End(answer.status());
  } else if (answer->has_value()) {
    End(**std::move(answer));
  } else {
    ReadNext();
  }
}

void UploadStream::End(absl::StatusOr<grpc::ByteBuffer> answer) {
  receiver_ = nullptr;
  if (answer.ok()) *response_ = *std::move(answer);
  Finish(scope_->End(answer.status()));
}

void UploadStream::OnDone() {
  {
    absl::MutexLock lock(&link_->mu);
    link_->context = nullptr;
  }
  delete this;
}

}  // namespace cupola::service
