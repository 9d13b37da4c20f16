#include "server/engine/stepped_batch.h"

#include <utility>

#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::engine {

SteppedBatch::SteppedBatch(std::vector<Part> parts,
                           std::function<absl::Status()> poll,
                           std::function<absl::Duration()> others,
                           std::string device, Observer* observer)
    : parts_(std::move(parts)),
      poll_(std::move(poll)),
      others_(std::move(others)),
      device_(std::move(device)),
      observer_(observer),
      start_(absl::Now()) {}

absl::Status SteppedBatch::Start() {
  analysis::Pass pass;
  pass.model = parts_.front().model.get();
  pass.poll = [this]() -> absl::Status {
    RETURN_IF_ERROR(poll_());
    return WantedByAny(parts_);
  };
  std::vector<analysis::Placed> placed;
  for (const Part& part : parts_) {
    placed.push_back(
        {part.sequence.get(), static_cast<int64_t>(placed.size()), part.sink});
  }
  ASSIGN_OR_RETURN(work_, parts_.front().analysis->Start(pass, placed));
  return absl::OkStatus();
}

absl::StatusOr<bool> SteppedBatch::TryStep() {
  return model::CatchTorch("running a step", [&]() -> absl::StatusOr<bool> {
    RETURN_IF_ERROR(poll_());
    RETURN_IF_ERROR(WantedByAny(parts_));
    if (work_ == nullptr) RETURN_IF_ERROR(Start());
    return work_->Step();
  });
}

bool SteppedBatch::Step() {
  const absl::Time start = absl::Now();
  const absl::Duration before = others_();
  const absl::StatusOr<bool> last = TryStep();
  const double spent =
      absl::ToDoubleSeconds(absl::Now() - start - (others_() - before));
  seconds_ += spent;
  if (last.ok()) {
    observer_->OnBatch(device_, work_->step_tokens(),
                       static_cast<int64_t>(parts_.size()), spent);
    if (!*last) return false;
    Finish(work_->TakeRecords());
  } else {
    Finish(last.status());
  }
  return true;
}

void SteppedBatch::Finish(
    absl::StatusOr<std::vector<storage::Record>> records) {
  succeeded_ = records.ok();
  work_ = nullptr;  // its memory is free before anybody hears
  for (size_t i = 0; i < parts_.size(); ++i) {
    Part& part = parts_[i];
    const PartTiming timing{absl::ToDoubleSeconds(start_ - part.enqueued),
                            seconds_};
    if (!records.ok()) {
      part.flight->Land(records.status());
    } else if ((*records)[i].empty()) {
      const absl::Status wanted = part.flight->StillWanted();
      part.flight->Land(wanted.ok() ? absl::CancelledError("nobody wanted more")
                                    : wanted);
    } else {
      part.flight->Land(Landed{
          std::make_shared<const storage::Record>(std::move((*records)[i])),
          timing});
    }
  }
}

}  // namespace cupola::engine
