#include "server/model/kept_state.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/model.h"
#include "tests/files/tiny_model.h"
#include "tests/model/safetensors_writer.h"

namespace cupola::model {
namespace {

using ::testing::HasSubstr;

constexpr ::cupola::testing::TinySizes kSizes = {
    .d_model = 16, .n_heads = 2, .n_ctx = 16};

// That continued rows equal recomputed ones is tests/parity/model's to show,
// for every family; here is what a pass keeps and what it refuses.
class KeptStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::cupola::testing::TinyGpt2(kSizes).Write(folder_);
    model_ = *Model::Load(*ModelSource::Open(folder_), {});
    ForwardRequest request;
    request.batch = TokenBatch::Pack({&row_});
    request.captures = {{HookKind::kFinalOut, -1}};
    request.keep = {1, {1}};
    clean_ = *model_->Forward(request);
    request_.batch = TokenBatch::Pack({&tail_});
    request_.start_layer = 1;
    request_.start_residual = clean_.kept->residuals.at(1).narrow(1, 3, 2);
    request_.continuation = {clean_.kept, {0}, {3}};
    request_.captures = {{HookKind::kFinalOut, -1}};
  }
  void ExpectInvalid(const std::string& what) {
    const auto result = model_->Forward(request_);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(what));
  }

  const std::string folder_ = TestFolder();
  const std::vector<int32_t> row_ = {3, 1, 4, 1, 5}, tail_ = {1, 5};
  std::shared_ptr<const Model> model_;
  ForwardResult clean_;
  ForwardRequest request_;
};

TEST_F(KeptStateTest, KeepsFromTheLayerAsked) {
  const KeptState& kept = *clean_.kept;
  EXPECT_FALSE(kept.keys[0].defined());
  EXPECT_EQ(kept.keys[1].sizes(), at::IntArrayRef({1, 2, 5, 8}));
  EXPECT_EQ(kept.values[1].sizes(), at::IntArrayRef({1, 2, 5, 8}));
  EXPECT_EQ(kept.residuals.size(), 1u);
  EXPECT_EQ(kept.bytes(), 4 * (2 * 2 * 5 * 8 + 5 * 16));
}

TEST_F(KeptStateTest, AnUnchangedRowContinuesAsItWas) {
  const auto continued = model_->Forward(request_);
  ASSERT_TRUE(continued.ok()) << continued.status();
  const HookPoint point{HookKind::kFinalOut, -1};
  EXPECT_TRUE(at::allclose(continued->captures.at(point),
                           clean_.captures.at(point).narrow(1, 3, 2), 1e-5,
                           1e-5));
}

TEST_F(KeptStateTest, RefusesRowsAndPositionsThatWereNotKept) {
  request_.continuation.kept_rows = {1};
  ExpectInvalid("continues kept row 1");
  request_.continuation.kept_rows = {0};
  request_.continuation.first = {6};
  ExpectInvalid("at position 6");
  request_.continuation.first = {3, 3};
  ExpectInvalid("2 positions for a batch of 1");
}

TEST_F(KeptStateTest, RefusesLayersThatWereNotKept) {
  request_.start_layer = 0;
  ExpectInvalid("layer 0 was not kept");
}

TEST_F(KeptStateTest, RefusesWhatAContinuingPassDoesNotMake) {
  request_.captures = {{HookKind::kPattern, 1}};
  ExpectInvalid("hook_pattern does not exist");
  request_.captures.clear();
  request_.keep = {0, {}};
  ExpectInvalid("keeps nothing");
}

TEST_F(KeptStateTest, RefusesToKeepWhatTheModelLacks) {
  request_.continuation = {};
  request_.keep = {3, {}};
  ExpectInvalid("keep.from_layer is 3");
  request_.keep = {0, {3}};
  ExpectInvalid("keep.residuals holds 3");
}

}  // namespace
}  // namespace cupola::model
