#include "server/engine/device_queue.h"

#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

// The queue looks at no more of it than its kind.
class NoAnalysis : public analysis::Analysis {
 public:
  std::set<model::HookPoint> captures() const override { return {}; }
  absl::StatusOr<std::vector<std::vector<storage::Array>>> Run(
      const analysis::Pass&,
      const std::vector<analysis::Placed>&) const override {
    return absl::UnimplementedError("");
  }
};

// A part of `rows` input rows that notes how it ended.
struct Probe {
  absl::StatusCode code = absl::StatusCode::kUnknown;
  int calls = 0;
};

Part MakePart(int64_t rows, Probe* probe) {
  auto sequence = std::make_shared<analysis::Sequence>();
  sequence->inputs.shape = {rows, 1};
  Part part;
  static const auto none = std::make_shared<const NoAnalysis>();
  part.analysis = none;
  part.sequence = std::move(sequence);
  part.done = [probe](auto record, PartTiming) {
    probe->code = record.status().code();
    ++probe->calls;
  };
  return part;
}

std::vector<Part> Parts(Part part) {
  std::vector<Part> parts;
  parts.push_back(std::move(part));
  return parts;
}

TEST(DeviceQueue, GivesWhatWasPushed) {
  DeviceQueue queue(10, 100);
  Probe probe;
  ASSERT_TRUE(queue.Push(Parts(MakePart(3, &probe))).ok());
  EXPECT_EQ(queue.depth(), 1);
  std::vector<Part> batch = queue.PopBatch();
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(batch[0].size(), 3);
  EXPECT_EQ(queue.depth(), 0);
  EXPECT_EQ(probe.calls, 0);
}

TEST(DeviceQueue, MergesWhatWaitsTogether) {
  DeviceQueue queue(10, 100);
  Probe probe;
  queue.HoldForTesting(true);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(queue.Push(Parts(MakePart(10, &probe))).ok());
  }
  queue.HoldForTesting(false);
  EXPECT_EQ(queue.PopBatch().size(), 3u);
}

TEST(DeviceQueue, TakesARequestWholeOrNotAtAll) {
  DeviceQueue queue(2, 100);
  Probe probe;
  std::vector<Part> three;
  for (int i = 0; i < 3; ++i) three.push_back(MakePart(1, &probe));
  const absl::Status status = queue.Push(std::move(three));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("2"));
  EXPECT_TRUE(status.GetPayload("retry-delay-ms").has_value());
  EXPECT_EQ(queue.depth(), 0);
  EXPECT_EQ(probe.calls, 0);
}

TEST(DeviceQueue, CancelledAndExpiredPartsLeaveAtBatchFormation) {
  DeviceQueue queue(10, 100);
  Probe cancelled, expired, wanted;
  Part gone = MakePart(1, &cancelled);
  gone.context.cancelled->store(true);
  Part late = MakePart(1, &expired);
  late.context.deadline = absl::Now() - absl::Seconds(1);
  ASSERT_TRUE(queue.Push(Parts(std::move(gone))).ok());
  ASSERT_TRUE(queue.Push(Parts(std::move(late))).ok());
  ASSERT_TRUE(queue.Push(Parts(MakePart(1, &wanted))).ok());
  EXPECT_EQ(queue.PopBatch().size(), 1u);
  EXPECT_EQ(cancelled.code, absl::StatusCode::kCancelled);
  EXPECT_EQ(expired.code, absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(wanted.calls, 0);
}

TEST(DeviceQueue, CloseEndsWhatWaitsAndWakesTheWorker) {
  DeviceQueue queue(10, 100);
  Probe probe;
  queue.HoldForTesting(true);
  ASSERT_TRUE(queue.Push(Parts(MakePart(1, &probe))).ok());
  std::thread worker([&] { EXPECT_TRUE(queue.PopBatch().empty()); });
  queue.Close(absl::UnavailableError("going"));
  worker.join();
  EXPECT_EQ(probe.code, absl::StatusCode::kUnavailable);
  EXPECT_EQ(queue.Push(Parts(MakePart(1, &probe))).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(probe.calls, 1);
}

TEST(DeviceQueue, AJobsPartsGoBehindAndByThemselves) {
  DeviceQueue queue(10, 100);
  Probe probe;
  queue.HoldForTesting(true);
  for (bool bulk : {true, true, false}) {
    Part part = MakePart(10, &probe);
    part.context.bulk = bulk;
    if (bulk) part.analysis = std::make_shared<const NoAnalysis>();
    ASSERT_TRUE(queue.Push(Parts(std::move(part))).ok());
  }
  queue.HoldForTesting(false);
  std::vector<Part> first = queue.PopBatch();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_FALSE(first[0].context.bulk);
  // While the worker has other steps to do, a job waits.
  EXPECT_TRUE(queue.PopBatch({.wait = false}).empty());
  // Two chunks are two batches.
  EXPECT_EQ(queue.PopBatch().size(), 1u);
  EXPECT_EQ(queue.PopBatch().size(), 1u);
}

}  // namespace
}  // namespace cupola::engine
