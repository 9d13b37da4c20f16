#include "server/service/token_writer.h"

#include <utility>

#include "server/service/wire.h"

namespace cupola::service {

TokenWriter::TokenWriter(std::unique_ptr<RequestScope> scope)
    : scope_(std::move(scope)) {}

absl::Status TokenWriter::Put(v1::GenerateResponse::Token token) {
  if (absl::Status wanted = scope_->StillWanted(); !wanted.ok()) return wanted;
  Advance([&] { *waiting_.add_tokens() = std::move(token); });
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
  if (waiting_.tokens_size() > 0) {
    message_ = SerializeMessage(waiting_);
    waiting_.Clear();
    writing_ = true;
    return Next::kWrite;
  }
  if (!last_.has_value()) return Next::kNothing;
  message_ = SerializeMessage(*last_);
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
