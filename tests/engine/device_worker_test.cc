#include "server/engine/device_worker.h"

#include <atomic>

#include "absl/synchronization/blocking_counter.h"
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

// Parts of one question, queued together.
void RunParts(std::shared_ptr<const Counting> analysis,
              const analysis::Sequence& sequence, int count) {
  Silent observer;
  DeviceWorker worker("cpu", 100, 100, &observer);
  worker.queue().HoldForTesting(true);
  absl::BlockingCounter left(count);
  std::vector<Part> parts(count);
  for (Part& part : parts) {
    part.analysis = analysis;
    part.sequence = std::make_shared<const analysis::Sequence>(sequence);
    part.done = [&left](auto record, PartTiming) {
      EXPECT_TRUE(record.ok());
      EXPECT_EQ((*record)->size(), 1u);
      left.DecrementCount();
    };
  }
  ASSERT_TRUE(worker.queue().Push(std::move(parts)).ok());
  worker.queue().HoldForTesting(false);
  left.Wait();
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
