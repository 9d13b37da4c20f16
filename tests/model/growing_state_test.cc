#include "server/model/growing_state.h"

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/model.h"
#include "tests/files/tiny_model.h"
#include "tests/model/safetensors_writer.h"

namespace cupola::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr ::cupola::testing::TinySizes kSizes = {
    .d_model = 16, .n_heads = 2, .n_ctx = 8};

// That grown rows equal recomputed ones is tests/parity/model's to show, for
// every family; here is how rows come and go, and what a pass refuses.
class GrowingStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::cupola::testing::TinyGpt2(kSizes).Write(folder_);
    model_ = *Model::Load(*ModelSource::Open(folder_), {});
    ForwardRequest request;
    request.batch = TokenBatch::Pack({&row_});
    request.captures = {{HookKind::kFinalOut, -1}};
    request.keep = {0, {}};
    kept_ = model_->Forward(request)->kept;
  }
  GrowingState State(int64_t rows, int64_t capacity) const {
    return {model_->config(), at::kFloat, at::kCPU, rows, capacity};
  }
  static ForwardRequest Next(GrowingState* state,
                             const std::vector<int32_t>& tokens) {
    ForwardRequest request;
    request.batch.tokens =
        at::tensor(std::vector<int64_t>(tokens.begin(), tokens.end()),
                   at::kLong)
            .unsqueeze(1);
    request.batch.lengths.assign(tokens.size(), 1);
    request.growing = state;
    request.logits = true;
    return request;
  }
  void ExpectInvalid(const ForwardRequest& request, const std::string& what) {
    const auto result = model_->Forward(request);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(what));
  }

  const std::string folder_ = TestFolder();
  const std::vector<int32_t> row_ = {3, 1, 4, 1, 5};
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const KeptState> kept_;
};

TEST_F(GrowingStateTest, WhatARemovedRowLeavesReachesNoOther) {
  auto broken = std::make_shared<KeptState>(*kept_);
  for (at::Tensor& values : broken->values) {
    values = at::full_like(values, std::numeric_limits<float>::quiet_NaN());
  }
  GrowingState state = State(3, 8);
  state.Add(*broken, 0, 5);
  state.Add(*kept_, 0, 3);
  state.Add(*kept_, 0, 2);
  state.Remove(0);  // the last row takes the place of a longer one
  EXPECT_TRUE(state.Values(0, 8).isfinite().all().item<bool>());
  state.Add(*broken, 0, 5);
  state.Remove(2);
  state.Add(*kept_, 0, 1);
  EXPECT_TRUE(state.Values(0, 8).isfinite().all().item<bool>());
}

TEST_F(GrowingStateTest, TheLastRowTakesARemovedOnesPlace) {
  GrowingState state = State(3, 8);
  state.Add(*kept_, 0, 2);
  state.Add(*kept_, 0, 0);
  state.Add(*kept_, 0, 5);
  EXPECT_THAT(state.lengths(), ElementsAre(2, 0, 5));
  state.Remove(0);
  EXPECT_THAT(state.lengths(), ElementsAre(5, 0));
  EXPECT_TRUE(at::equal(state.Keys(1, 5)[0], kept_->keys[1][0]));
  state.Remove(1);
  EXPECT_THAT(state.lengths(), ElementsAre(5));
  EXPECT_EQ(state.rows(), 1);
  EXPECT_EQ(GrowingState::RowBytes(model_->config(), at::kFloat, 8),
            2 * 2 * 16 * 8 * 4);
}

TEST_F(GrowingStateTest, APassThatFailsGrowsNothing) {
  GrowingState state = State(1, 8);
  state.Add(*kept_, 0, 5);
  ForwardRequest request = Next(&state, {2});
  const auto expected = model_->Forward(request);
  ASSERT_TRUE(expected.ok()) << expected.status();
  EXPECT_THAT(state.lengths(), ElementsAre(6));

  GrowingState again = State(1, 8);
  again.Add(*kept_, 0, 5);
  request = Next(&again, {7});
  int polls = 0;
  request.poll = [&] {
    return ++polls < 3 ? absl::OkStatus() : absl::CancelledError("");
  };
  EXPECT_TRUE(absl::IsCancelled(model_->Forward(request).status()));
  EXPECT_THAT(again.lengths(), ElementsAre(5));
  const auto other = model_->Forward(Next(&again, {2}));
  EXPECT_TRUE(at::equal(other->logits, expected->logits));
}

TEST_F(GrowingStateTest, RefusesWhatDoesNotFit) {
  GrowingState state = State(2, 6);
  state.Add(*kept_, 0, 5);
  ExpectInvalid(Next(&state, {2, 3}), "1 rows takes one token for each");
  ASSERT_TRUE(model_->Forward(Next(&state, {2})).ok());
  ExpectInvalid(Next(&state, {2}), "cannot grow beyond 6");
  GrowingState wide = State(1, 100);
  wide.Add(*kept_, 0, 5);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(model_->Forward(Next(&wide, {1})).ok());
  }
  ExpectInvalid(Next(&wide, {2}), "cannot grow beyond 8");  // the context
  GrowingState small = State(1, 8);
  small.Add(*kept_, 0, 5);
  ForwardRequest request = Next(&small, {2});
  request.keep = {0, {}};
  ExpectInvalid(request, "keeps nothing else");
  request = Next(&small, {2});
  request.logits = false;
  request.captures = {{HookKind::kFinalOut, -1}};
  ExpectInvalid(request, "to the logits");
}

}  // namespace
}  // namespace cupola::model
