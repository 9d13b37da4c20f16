#include "server/service/token_writer.h"

#include <utility>

#include "server/service/wire.h"

namespace cupola::service {
namespace {

// A message ends with the token that gets it here: clients take 32 MiB, and
// whoever generates waits while one is encoded.
constexpr size_t kMessageBytes = size_t{1} << 20;

}  // namespace

TokenWriter::TokenWriter(std::unique_ptr<RequestScope> scope)
    : scope_(std::move(scope)) {}

absl::Status TokenWriter::Put(v1::GenerateResponse::Token token) {
  if (absl::Status wanted = scope_->StillWanted(); !wanted.ok()) return wanted;
  Advance([&] { waiting_.push_back(std::move(token)); });
  return absl::OkStatus();
}

void TokenWriter::Send(v1::GenerateResponse last) {
  Advance([&] {
    last_ = std::move(last);
    outcome_ = absl::OkStatus();
  });
}

void TokenWriter::Fail(const absl::Status& status) {
  Advance([&] { outcome_ = status; });
}

template <typename Change>
void TokenWriter::Advance(const Change& change) {
  Next next;
  {
    absl::MutexLock lock(&mu_);
    change();
    next = Choose();
  }
  // Behind any of these the call may end, and this with it.
  switch (next) {
    case Next::kNothing:
      return;
    case Next::kWrite:
      return StartWrite(&message_);
    case Next::kWriteLast:
      return StartWriteAndFinish(&message_, grpc::WriteOptions(),
                                 scope_->End(absl::OkStatus()));
    case Next::kFail:
      return Finish(scope_->End(failure_));
  }
}

TokenWriter::Next TokenWriter::Choose() {
  if (writing_ || finished_) return Next::kNothing;
  if (outcome_.has_value() && outcome_->ok()) {
    outcome_ = scope_->StillWanted();
  }
  if (outcome_.has_value() && !outcome_->ok()) {
    finished_ = true;
    failure_ = *outcome_;
    return Next::kFail;
  }
  if (!waiting_.empty()) {
    v1::GenerateResponse some;
    for (size_t bytes = 0; !waiting_.empty() && bytes < kMessageBytes;) {
      bytes += waiting_.front().ByteSizeLong();
      *some.add_tokens() = std::move(waiting_.front());
      waiting_.pop_front();
    }
    message_ = SerializeMessage(some);
    scope_->CountBytes(message_.Length());
    writing_ = true;
    return Next::kWrite;
  }
  if (!last_.has_value()) return Next::kNothing;
  message_ = SerializeMessage(*last_);
  scope_->CountBytes(message_.Length());
  finished_ = true;
  return Next::kWriteLast;
}

void TokenWriter::OnCancel() { scope_->Cancel(); }

void TokenWriter::OnWriteDone(bool ok) {
  // A client that has gone is told of by StillWanted from now on; the call ends
  // when the engine has let go of it.
  if (!ok) scope_->Cancel();
  Advance([&] { writing_ = false; });
}

void TokenWriter::OnDone() { delete this; }

}  // namespace cupola::service
