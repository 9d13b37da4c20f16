#include "server/engine/device_queue.h"

#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/hash/hash.h"
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

Part MakePart(int64_t rows, Probe* probe, RequestContext context = {}) {
  auto sequence = std::make_shared<analysis::Sequence>();
  sequence->inputs.shape = {rows, 1};
  Part part;
  static const auto none = std::make_shared<const NoAnalysis>();
  part.analysis = none;
  part.sequence = std::move(sequence);
  part.seconds = 1e-3 * static_cast<double>(rows);
  part.bulk = context.bulk;
  part.client = absl::HashOf(context.client);
  const auto done = [probe](absl::StatusOr<Landed> landed) {
    probe->code = landed.status().code();
    ++probe->calls;
  };
  part.flight = std::make_shared<Flight>(
      Flight::Passenger{std::move(context), done, nullptr});
  return part;
}

std::vector<Part> Parts(Part part) {
  std::vector<Part> parts;
  parts.push_back(std::move(part));
  return parts;
}

TEST(DeviceQueue, GivesWhatWasPushed) {
  DeviceQueue queue({.max_parts = 10, .batch_tokens = 100});
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
  DeviceQueue queue({.max_parts = 10, .batch_tokens = 100});
  Probe probe;
  queue.HoldForTesting(true);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(queue.Push(Parts(MakePart(10, &probe))).ok());
  }
  queue.HoldForTesting(false);
  EXPECT_EQ(queue.PopBatch().size(), 3u);
}

TEST(DeviceQueue, TakesARequestWholeOrNotAtAll) {
  DeviceQueue queue({.max_parts = 2, .batch_tokens = 100});
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
  DeviceQueue queue({.max_parts = 10, .batch_tokens = 100});
  Probe cancelled, expired, wanted;
  RequestContext left, past;
  left.cancelled->store(true);
  past.deadline = absl::Now() - absl::Seconds(1);
  Part gone = MakePart(1, &cancelled, left);
  Part late = MakePart(1, &expired, past);
  ASSERT_TRUE(queue.Push(Parts(std::move(gone))).ok());
  ASSERT_TRUE(queue.Push(Parts(std::move(late))).ok());
  ASSERT_TRUE(queue.Push(Parts(MakePart(1, &wanted))).ok());
  EXPECT_EQ(queue.PopBatch().size(), 1u);
  EXPECT_EQ(cancelled.code, absl::StatusCode::kCancelled);
  EXPECT_EQ(expired.code, absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(wanted.calls, 0);
}

TEST(DeviceQueue, CloseEndsWhatWaitsAndWakesTheWorker) {
  DeviceQueue queue({.max_parts = 10, .batch_tokens = 100});
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
  DeviceQueue queue({.max_parts = 10, .batch_tokens = 100});
  Probe probe;
  queue.HoldForTesting(true);
  for (bool bulk : {true, true, false}) {
    RequestContext context;
    context.bulk = bulk;
    Part part = MakePart(10, &probe, context);
    if (bulk) part.analysis = std::make_shared<const NoAnalysis>();
    ASSERT_TRUE(queue.Push(Parts(std::move(part))).ok());
  }
  queue.HoldForTesting(false);
  std::vector<Part> first = queue.PopBatch();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_FALSE(first[0].bulk);
  // While the worker has other steps to do, a job waits.
  EXPECT_TRUE(queue.PopBatch({.wait = false}).empty());
  // Two chunks are two batches.
  EXPECT_EQ(queue.PopBatch().size(), 1u);
  EXPECT_EQ(queue.PopBatch().size(), 1u);
}

RequestContext Of(const std::string& client) {
  RequestContext context;
  context.client = client;
  return context;
}

TEST(DeviceQueue, ClientsTakeTurns) {
  DeviceQueue queue({.max_parts = 100, .batch_tokens = 20});
  Probe probe;
  queue.HoldForTesting(true);
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(queue.Push(Parts(MakePart(10, &probe, Of("lab")))).ok());
  }
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(queue.Push(Parts(MakePart(10, &probe, Of("one")))).ok());
  }
  queue.HoldForTesting(false);
  // Two parts a batch: one of each while both wait.
  const uint64_t one = absl::HashOf(std::string("one"));
  std::vector<int> of_one;
  for (int batch = 0; batch < 4; ++batch) {
    int count = 0;
    for (const Part& part : queue.PopBatch()) count += part.client == one;
    of_one.push_back(count);
  }
  EXPECT_THAT(of_one, testing::ElementsAre(1, 1, 0, 0));
}

TEST(DeviceQueue, WhoWorksAtSomethingLongTakesWhatIsShort) {
  DeviceQueue queue({.max_parts = 10, .batch_tokens = 1000});
  Probe probe;
  ASSERT_TRUE(queue.Push(Parts(MakePart(500, &probe))).ok());
  EXPECT_TRUE(queue.PopBatch({.wait = false, .most_seconds = 0.1}).empty());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(queue.Push(Parts(MakePart(40, &probe))).ok());
  }
  // Two take 80 ms together, three 120.
  EXPECT_EQ(queue.PopBatch({.wait = false, .most_seconds = 0.1}).size(), 2u);
  EXPECT_EQ(queue.PopBatch()[0].size(), 500);
}

TEST(DeviceQueue, OneBatchIsNotLongWhileOthersWait) {
  DeviceQueue queue({.max_parts = 100, .batch_tokens = 1000});
  Probe probe;
  queue.HoldForTesting(true);
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(queue.Push(Parts(MakePart(50, &probe, Of("lab")))).ok());
  }
  Part other = MakePart(50, &probe, Of("one"));
  other.analysis = std::make_shared<const NoAnalysis>();
  other.identity[0] = 1;  // another question: a batch of its own
  ASSERT_TRUE(queue.Push(Parts(std::move(other))).ok());
  queue.HoldForTesting(false);
  EXPECT_EQ(queue.PopBatch().size(), 2u);  // of 50 ms each
  EXPECT_EQ(queue.PopBatch().size(), 1u);  // the other client's
  EXPECT_EQ(queue.PopBatch().size(), 8u);  // nobody else waits
}

TEST(DeviceQueue, AClientAloneDoesNotFillTheQueue) {
  DeviceQueue queue(
      {.max_parts = 10, .max_parts_per_client = 3, .batch_tokens = 100});
  Probe probe;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(queue.Push(Parts(MakePart(1, &probe, Of("lab")))).ok());
  }
  const absl::Status status = queue.Push(Parts(MakePart(1, &probe, Of("lab"))));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("client"));
  EXPECT_TRUE(queue.Push(Parts(MakePart(1, &probe, Of("one")))).ok());
  // What leaves makes room.
  EXPECT_EQ(queue.PopBatch().size(), 4u);
  EXPECT_TRUE(queue.Push(Parts(MakePart(1, &probe, Of("lab")))).ok());
}

}  // namespace
}  // namespace cupola::engine
