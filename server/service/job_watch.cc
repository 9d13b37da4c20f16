#include "server/service/job_watch.h"

#include <utility>

#include "server/service/jobs_conversion.h"
#include "server/service/wire.h"

namespace cupola::service {

JobWatch::JobWatch(std::unique_ptr<RequestScope> scope)
    : scope_(std::move(scope)) {
  absl::MutexLock lock(&link_->mu);
  link_->watch = this;
}

void JobWatch::Follow(engine::Jobs* jobs, const std::string& id) {
  jobs->Watch(id, [link = link_](const absl::StatusOr<engine::JobInfo>& info) {
    JobWatch* watch = nullptr;
    Next next = Next::kNothing;
    {
      absl::MutexLock linked(&link->mu);
      watch = link->watch;
      if (watch == nullptr) return false;
      absl::MutexLock lock(&watch->mu_);
      if (info.ok()) {
        watch->latest_ = *info;
      } else {
        watch->failure_ = info.status();
      }
      next = watch->Choose();
    }
    watch->Act(next);
    return info.ok() && !engine::HasEnded(info->state);
  });
}

void JobWatch::Fail(const absl::Status& status) {
  Next next = Next::kNothing;
  {
    absl::MutexLock lock(&mu_);
    if (!failure_.has_value()) failure_ = status;
    next = Choose();
  }
  Act(next);
}

JobWatch::Next JobWatch::Choose() {
  if (writing_ || finished_) return Next::kNothing;
  if (failure_.has_value()) {
    finished_ = true;
    return Next::kFail;
  }
  if (!latest_.has_value()) return Next::kNothing;
  message_ = SerializeMessage(ToProto(*latest_));
  const bool last = engine::HasEnded(latest_->state);
  latest_.reset();
  (last ? finished_ : writing_) = true;
  return last ? Next::kWriteLast : Next::kWrite;
}

void JobWatch::Act(Next next) {
  switch (next) {
    case Next::kNothing:
      return;
    case Next::kWrite:
      return StartWrite(&message_);
    case Next::kWriteLast:
      return StartWriteAndFinish(&message_, grpc::WriteOptions(),
                                 scope_->End(absl::OkStatus()));
    case Next::kFail:
      return Finish(scope_->End(*failure_));
  }
}

void JobWatch::OnCancel() {
  scope_->Cancel();
  Fail(scope_->StillWanted());
}

void JobWatch::OnWriteDone(bool ok) {
  Next next = Next::kNothing;
  {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (!ok && !failure_.has_value()) {
      failure_ = absl::CancelledError("the client has gone");
    }
    next = Choose();
  }
  Act(next);
}

void JobWatch::OnDone() {
  {
    absl::MutexLock lock(&link_->mu);
    link_->watch = nullptr;
  }
  delete this;
}

}  // namespace cupola::service
