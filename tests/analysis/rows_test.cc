#include "server/analysis/rows.h"

#include "gtest/gtest.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"

namespace cupola::analysis {
namespace {

const model::HookPoint kHook{model::HookKind::kZ, 0};

// A batch of two prompts, padded to 3 positions, with 2 heads of width 2.
model::ForwardResult Forward() {
  model::ForwardResult result;
  result.captures[kHook] = at::arange(24, at::kFloat).reshape({2, 3, 2, 2});
  return result;
}

Sequence Prompt(int64_t length, std::vector<int64_t> positions) {
  Sequence sequence;
  sequence.tokens.resize(length);
  sequence.positions = std::move(positions);
  return sequence;
}

TEST(GatherRows, FlattensHeadsHeadMajorAndKeepsTheOrderAsked) {
  const model::ForwardResult forward = Forward();
  const Sequence first = Prompt(3, {2, 0}), second = Prompt(2, {1});
  auto rows =
      GatherRows({nullptr, &forward, {}}, kHook, {{&first, 0}, {&second, 1}});
  ASSERT_TRUE(rows.ok());
  const at::Tensor expected = at::tensor(
      {8.f, 9.f, 10.f, 11.f, 0.f, 1.f, 2.f, 3.f, 16.f, 17.f, 18.f, 19.f});
  EXPECT_TRUE(at::equal(*rows, expected.reshape({3, 4})));
}

TEST(GatherRows, OfEverythingIsAView) {
  const model::ForwardResult forward = Forward();
  const Sequence first = Prompt(3, {0, 1, 2}), second = Prompt(3, {0, 1, 2});
  auto rows =
      GatherRows({nullptr, &forward, {}}, kHook, {{&first, 0}, {&second, 1}});
  ASSERT_TRUE(rows.ok());
  EXPECT_EQ(rows->const_data_ptr(),
            forward.captures.at(kHook).const_data_ptr());
}

TEST(GatherRows, PutsInputsBelowOneAnother) {
  Sequence first, second;
  first.inputs = ToArray(at::full({1, 2}, 1.f), storage::DType::kFloat32);
  second.inputs = ToArray(at::full({2, 2}, 2.f), storage::DType::kFloat32);
  auto rows = GatherRows({}, kHook, {{&first, 0}, {&second, 0}});
  ASSERT_TRUE(rows.ok());
  EXPECT_TRUE(at::equal(
      *rows, at::tensor({1.f, 1.f, 2.f, 2.f, 2.f, 2.f}).reshape({3, 2})));
  EXPECT_EQ(RowCount(second), 2);
}

TEST(GatherRows, ReportsATensorThatWasNotCaptured) {
  const model::ForwardResult forward;
  const Sequence prompt = Prompt(1, {0});
  EXPECT_EQ(GatherRows({nullptr, &forward, {}}, kHook, {{&prompt, 0}})
                .status()
                .code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace cupola::analysis
