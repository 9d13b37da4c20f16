#include "server/engine/device_worker.h"

#include <atomic>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

// Answers each of its sequences with the number of calls so far.
class Counting : public analysis::Analysis {
 public:
  std::set<model::HookPoint> captures() const override { return {}; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const analysis::Pass& pass,
      const std::vector<analysis::Placed>& sequences) const override {
    EXPECT_EQ(pass.forward, nullptr);
    asked += sequences.size();
    ++calls;
    return std::vector<std::vector<storage::Array>>(
        sequences.size(), {{storage::DType::kInt32, {0}, ""}});
  }
  mutable std::atomic<int> asked{0}, calls{0};
};

class Silent : public Observer {};

std::shared_ptr<Flight> FlightOf(RequestContext context, Flight::Done done) {
  return std::make_shared<Flight>(
      Flight::Passenger{std::move(context), std::move(done), nullptr});
}

// Parts of one question, queued together.
void RunParts(std::shared_ptr<const Counting> analysis,
              const analysis::Sequence& sequence, int count) {
  Silent observer;
  DeviceWorker worker("cpu", {.max_parts = 100, .batch_tokens = 100},
                      &observer);
  worker.queue().HoldForTesting(true);
  absl::BlockingCounter left(count);
  std::vector<Part> parts(count);
  for (Part& part : parts) {
    part.analysis = analysis;
    part.sequence = std::make_shared<const analysis::Sequence>(sequence);
    part.flight = FlightOf({}, [&left](absl::StatusOr<Landed> landed) {
      EXPECT_TRUE(landed.ok());
      EXPECT_EQ(landed->record->size(), 1u);
      left.DecrementCount();
    });
  }
  ASSERT_TRUE(worker.queue().Push(std::move(parts)).ok());
  worker.queue().HoldForTesting(false);
  left.Wait();
}

// Counts down; its steps can be held up.
class Slow : public analysis::Analysis {
 public:
  explicit Slow(int steps) : steps_(steps) {}
  std::set<model::HookPoint> captures() const override { return {}; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const analysis::Pass&,
      const std::vector<analysis::Placed>&) const override {
    return absl::InternalError("its work is done in steps");
  }
  bool stepwise() const override { return true; }
  absl::StatusOr<std::unique_ptr<analysis::Stepwise>> Start(
      const analysis::Pass&,
      const std::vector<analysis::Placed>& sequences) const override {
    return std::make_unique<Work>(this, sequences);
  }

  mutable std::atomic<int> started{0}, done{0};

 private:
  class Work : public analysis::Stepwise {
   public:
    Work(const Slow* slow, std::vector<analysis::Placed> sequences)
        : slow_(slow), sequences_(std::move(sequences)), left_(slow->steps_) {
      ++slow->started;
    }
    absl::StatusOr<bool> Step() override {
      absl::SleepFor(absl::Milliseconds(1));
      for (const analysis::Placed& placed : sequences_) {
        if (placed.sink != nullptr) given_up_ |= !(*placed.sink)({}).ok();
      }
      ++slow_->done;
      return given_up_ || --left_ == 0;
    }
    int64_t step_tokens() const override { return 1; }
    absl::StatusOr<std::vector<std::vector<storage::Array>>> TakeRecords()
        override {
      std::vector<storage::Array> record;
      if (!given_up_) record = {{storage::DType::kInt32, {0}, ""}};
      return std::vector<std::vector<storage::Array>>(sequences_.size(),
                                                      record);
    }

   private:
    const Slow* const slow_;
    const std::vector<analysis::Placed> sequences_;
    int left_;
    bool given_up_ = false;
  };
  const int steps_;
};

Part PartOf(std::shared_ptr<const analysis::Analysis> analysis, int length,
            std::function<void(absl::Status)> done,
            RequestContext context = {}) {
  Part part;
  part.analysis = std::move(analysis);
  analysis::Sequence sequence;
  sequence.tokens.resize(length);
  part.sequence = std::make_shared<const analysis::Sequence>(sequence);
  part.flight =
      FlightOf(std::move(context),
               [done = std::move(done)](absl::StatusOr<Landed> landed) {
                 done(landed.status());
               });
  return part;
}

TEST(DeviceWorker, ServesOthersBetweenTheStepsOfALongWork) {
  Silent observer;
  DeviceWorker worker("cpu", {.max_parts = 100, .batch_tokens = 100},
                      &observer);
  const auto endless = std::make_shared<const Slow>(1 << 30);
  absl::Notification ended;
  const RequestContext context;
  const auto cancelled = [&](absl::Status status) {
    EXPECT_TRUE(absl::IsCancelled(status)) << status;
    ended.Notify();
  };
  Part part = PartOf(endless, 3, cancelled, context);
  std::vector<Part> parts;
  parts.push_back(std::move(part));
  ASSERT_TRUE(worker.queue().Push(std::move(parts)).ok());
  while (endless->started == 0) absl::SleepFor(absl::Milliseconds(1));

  const auto quick = std::make_shared<const Counting>();
  const auto other = std::make_shared<const Slow>(3);
  absl::BlockingCounter left(2);
  const auto done = [&](absl::Status status) {
    EXPECT_TRUE(status.ok()) << status;
    left.DecrementCount();
  };
  for (const std::shared_ptr<const analysis::Analysis>& analysis :
       std::vector<std::shared_ptr<const analysis::Analysis>>{quick, other}) {
    parts.clear();
    Part more = PartOf(analysis, 3, done);
    // A sequence without tokens needs no model.
    analysis::Sequence rows;
    rows.inputs = {storage::DType::kFloat32, {1, 1}, std::string(4, '\0')};
    more.sequence = std::make_shared<const analysis::Sequence>(rows);
    parts.push_back(std::move(more));
    ASSERT_TRUE(worker.queue().Push(std::move(parts)).ok());
  }
  left.Wait();
  EXPECT_FALSE(ended.HasBeenNotified());
  context.cancelled->store(true);
  ended.WaitForNotification();
}

// Works until it is told to end, and lets the worker serve others meanwhile.
class Long : public analysis::Analysis {
 public:
  std::set<model::HookPoint> captures() const override { return {}; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const analysis::Pass& pass,
      const std::vector<analysis::Placed>& sequences) const override {
    started.Notify();
    while (!end) {
      absl::SleepFor(absl::Milliseconds(1));
      absl::Status wanted = pass.poll();
      if (!wanted.ok()) return wanted;
    }
    return std::vector<std::vector<storage::Array>>(
        sequences.size(), {{storage::DType::kInt32, {0}, ""}});
  }
  mutable absl::Notification started;
  std::atomic<bool> end{false};
};

TEST(DeviceWorker, ServesWhatIsShortWithinWhatIsLong) {
  Silent observer;
  DeviceWorker worker("cpu", {.max_parts = 100, .batch_tokens = 100},
                      &observer);
  const auto endless = std::make_shared<Long>();
  const auto push = [&](std::shared_ptr<const analysis::Analysis> analysis,
                        double seconds, std::function<void()> done) {
    analysis::Sequence rows;
    rows.inputs = {storage::DType::kFloat32, {1, 1}, std::string(4, '\0')};
    Part part = PartOf(std::move(analysis), 1, [=](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      done();
    });
    part.sequence = std::make_shared<const analysis::Sequence>(rows);
    part.seconds = seconds;
    std::vector<Part> parts;
    parts.push_back(std::move(part));
    ASSERT_TRUE(worker.queue().Push(std::move(parts)).ok());
  };
  absl::Notification all, quick, slow;
  push(endless, 10, [&] { all.Notify(); });
  endless->started.WaitForNotification();
  // Something as long waits for the end, something short does not.
  push(std::make_shared<const Counting>(), 10, [&] { slow.Notify(); });
  push(std::make_shared<const Counting>(), 0.01, [&] { quick.Notify(); });
  quick.WaitForNotification();
  EXPECT_FALSE(all.HasBeenNotified());
  EXPECT_FALSE(slow.HasBeenNotified());
  endless->end = true;
  all.WaitForNotification();
  slow.WaitForNotification();
}

TEST(DeviceWorker, StepsOfPartsOfOneQuestionAreOneWork) {
  Silent observer;
  DeviceWorker worker("cpu", {.max_parts = 100, .batch_tokens = 100},
                      &observer);
  worker.queue().HoldForTesting(true);
  const auto slow = std::make_shared<const Slow>(2);
  absl::BlockingCounter left(2);
  std::vector<Part> parts;
  for (int length : {90, 2}) {  // no padded batch takes both
    parts.push_back(PartOf(slow, length, [&](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      left.DecrementCount();
    }));
  }
  ASSERT_TRUE(worker.queue().Push(std::move(parts)).ok());
  worker.queue().HoldForTesting(false);
  left.Wait();
  EXPECT_EQ(slow->started, 1);
  EXPECT_EQ(slow->done, 2);
}

TEST(DeviceWorker, WhatWasGivenUpIsNoAnswer) {
  Silent observer;
  DeviceWorker worker("cpu", {.max_parts = 100, .batch_tokens = 100},
                      &observer);
  const analysis::TokenSink sink = [](const analysis::GeneratedToken&) {
    return absl::CancelledError("enough");
  };
  absl::Notification ended;
  Part part = PartOf(std::make_shared<const Slow>(1 << 30), 3,
                     [&](absl::Status status) {
                       EXPECT_TRUE(absl::IsCancelled(status)) << status;
                       ended.Notify();
                     });
  part.sink = &sink;
  std::vector<Part> parts;
  parts.push_back(std::move(part));
  ASSERT_TRUE(worker.queue().Push(std::move(parts)).ok());
  ended.WaitForNotification();
}

TEST(DeviceWorker, StopEndsWorkInSteps) {
  Silent observer;
  DeviceWorker worker("cpu", {.max_parts = 100, .batch_tokens = 100},
                      &observer);
  const auto endless = std::make_shared<const Slow>(1 << 30);
  absl::Notification ended;
  std::vector<Part> parts;
  parts.push_back(PartOf(endless, 3, [&](absl::Status status) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    ended.Notify();
  }));
  ASSERT_TRUE(worker.queue().Push(std::move(parts)).ok());
  while (endless->started == 0) absl::SleepFor(absl::Milliseconds(1));
  worker.Stop();
  EXPECT_TRUE(ended.HasBeenNotified());
}

TEST(DeviceWorker, AsksAQuestionWithoutASequenceOnce) {
  const auto analysis = std::make_shared<const Counting>();
  analysis::Sequence nothing;
  nothing.positions = {0};
  RunParts(analysis, nothing, 3);
  EXPECT_EQ(analysis->calls, 1);
  EXPECT_EQ(analysis->asked, 1);
}

TEST(DeviceWorker, AsksAboutEverySequenceOfAQuestion) {
  const auto analysis = std::make_shared<const Counting>();
  analysis::Sequence inputs;
  inputs.inputs = {storage::DType::kFloat32, {1, 1}, std::string(4, '\0')};
  RunParts(analysis, inputs, 3);
  EXPECT_EQ(analysis->calls, 1);
  EXPECT_EQ(analysis->asked, 3);
}

}  // namespace
}  // namespace cupola::engine
