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
  // Once it has begun the call may end at any time, and this with it.
  const std::shared_ptr<Link> link = link_;
  const absl::Status wanted = scope_->StillWanted();
  if (!wanted.ok()) return Fail(wanted);
  {
    absl::MutexLock lock(&mu_);
    begun_ = true;
  }
  jobs->Watch(id, [link](const absl::StatusOr<engine::JobInfo>& info) {
    JobWatch* watch = nullptr;
    Next next = Next::kNothing;
    {
      absl::MutexLock linked(&link->mu);
      watch = link->watch;
      if (watch == nullptr) return false;
      absl::MutexLock lock(&watch->mu_);
      if (info.ok()) {
        watch->latest_ = *info;
      } else if (!watch->failure_.has_value()) {
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
    begun_ = true;
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
  scope_->CountBytes(message_.Length());
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
  Next next = Next::kNothing;
  {
    absl::MutexLock lock(&mu_);
    if (!begun_) return;  // somebody still reads the request: they will see
    if (!failure_.has_value()) failure_ = scope_->StillWanted();
    next = Choose();
  }
  Act(next);
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
