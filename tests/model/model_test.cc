#include "server/model/model.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/weights.h"
#include "tests/files/tiny_model.h"
#include "tests/model/safetensors_writer.h"

namespace cupola::model {
namespace {

using ::cupola::testing::kTinyVocabulary;
using ::cupola::testing::TinyGpt2;
using ::testing::HasSubstr;

constexpr ::cupola::testing::TinySizes kSizes = {
    .d_model = 16, .n_heads = 2, .n_ctx = 16};

class LoadTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const Model>> Load(
      const Model::Options& options = {}) {
    tiny_.Write(folder_);
    auto source = ModelSource::Open(folder_);
    if (!source.ok()) return source.status();
    return Model::Load(*source, options);
  }
  void ExpectRefused(const std::string& what) {
    const auto model = Load();
    EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(what));
  }
  const std::string folder_ = TestFolder();
  TinyGpt2 tiny_{kSizes};
};

TEST_F(LoadTest, NamesATensorOfTheWrongShapeWithBothShapes) {
  tiny_.tensors["h.1.mlp.c_fc.weight"].shape = {64, 16};
  ExpectRefused(
      "'h.1.mlp.c_fc.weight' has shape [64, 16], the config needs "
      "[16, 64]");
}

TEST_F(LoadTest, NamesAMissingTensor) {
  tiny_.tensors.erase("h.0.attn.c_proj.bias");
  ExpectRefused("'h.0.attn.c_proj.bias' of shape [16]");
}

TEST_F(LoadTest, RefusesConfigAndWeightsThatDisagree) {
  tiny_.config["n_layer"] = 3;
  ExpectRefused("h.2.");
}

TEST_F(LoadTest, RefusesValuesThatAreNotFinite) {
  for (const float value : {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
    for (const char* name : {"wte.weight", "h.1.ln_2.bias",
                             "h.0.mlp.c_proj.weight", "ln_f.weight"}) {
      tiny_ = TinyGpt2(kSizes);
      tiny_.tensors[name].values[5] = value;
      ExpectRefused(name);
    }
  }
}

TEST_F(LoadTest, AcceptsTheOuterPrefixOfTheFamily) {
  decltype(tiny_.tensors) prefixed;
  for (const auto& [name, tensor] : tiny_.tensors) {
    prefixed["transformer." + name] = tensor;
  }
  tiny_.tensors = prefixed;
  EXPECT_TRUE(Load().ok()) << Load().status();
}

TEST_F(LoadTest, ReportsFilesThatAreMissingOrBad) {
  EXPECT_EQ(ModelSource::Open(folder_).status().code(),
            absl::StatusCode::kNotFound);
  tiny_.Write(folder_);
  WriteFile(folder_ + "/config.json", "{");
  EXPECT_EQ(ModelSource::Open(folder_).status().code(),
            absl::StatusCode::kInvalidArgument);
  WriteFile(folder_ + "/config.json", R"({"model_type": "gpt2"})");
  const auto source = ModelSource::Open(folder_);
  EXPECT_EQ(source.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(source.status().message()), HasSubstr("config.json"));
}

TEST_F(LoadTest, RefusesOtherDtypes) {
  for (const at::ScalarType dtype : {at::kHalf, at::kDouble, at::kLong}) {
    EXPECT_EQ(Load({.dtype = dtype}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(LoadTest, TheDigestSeesWeightsAndConfig) {
  tiny_.Write(folder_);
  const storage::Digest before = (*ModelSource::Open(folder_))->digest();
  EXPECT_EQ((*ModelSource::Open(folder_))->digest(), before);
  tiny_.tensors["ln_f.bias"].values[3] += 1;
  tiny_.Write(folder_);
  const storage::Digest other_weights = (*ModelSource::Open(folder_))->digest();
  EXPECT_NE(other_weights, before);
  tiny_.config["layer_norm_epsilon"] = 1e-6;
  tiny_.Write(folder_);
  EXPECT_NE((*ModelSource::Open(folder_))->digest(), other_weights);
}

TEST_F(LoadTest, CountsEveryWeightOnce) {
  const auto model = Load();
  ASSERT_TRUE(model.ok()) << model.status();
  int64_t parameters = 0;
  for (const auto& [name, tensor] : tiny_.tensors) {
    parameters += tensor.values.size();
  }
  EXPECT_EQ((*model)->source().WeightBytes(at::kFloat), 4 * parameters);
  EXPECT_EQ((*model)->source().WeightBytes(at::kBFloat16), 2 * parameters);
  EXPECT_GE((*model)->resident_bytes(), 4 * parameters);
}

class ForwardTest : public LoadTest {
 protected:
  void SetUp() override {
    auto model = Load();
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    request_.batch = TokenBatch::Pack({&row_});
  }
  HookPoint Point(absl::string_view name) const {
    return *ParseHookPoint(name, model_->config());
  }
  void ExpectInvalid(const std::string& what) {
    const auto result = model_->Forward(request_);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(what));
  }
  std::shared_ptr<const Model> model_;
  const std::vector<int32_t> row_ = {3, 1, 4, 1, 5};
  ForwardRequest request_;
};

TEST_F(ForwardTest, RefusesTokensOutsideTheVocabulary) {
  for (const int32_t bad :
       {-1, kTinyVocabulary, std::numeric_limits<int32_t>::max()}) {
    const std::vector<int32_t> row = {3, bad};
    request_.batch = TokenBatch::Pack({&row});
    request_.logits = true;
    ExpectInvalid(std::to_string(bad));
  }
}

TEST_F(ForwardTest, RefusesEmptyAndTooLongPrompts) {
  const std::vector<int32_t> none, many(17, 1);
  request_.logits = true;
  request_.batch = TokenBatch::Pack({&none});
  ExpectInvalid("non-empty");
  request_.batch = TokenBatch::Pack({&row_, &none});
  ExpectInvalid("length 0");
  request_.batch = TokenBatch::Pack({});
  ExpectInvalid("non-empty");
  request_.batch = TokenBatch::Pack({&many});
  ExpectInvalid("17 tokens is longer than the model's context of 16");
}

TEST_F(ForwardTest, RefusesStartsAndStopsOutsideTheModel) {
  request_.stop_at_layer = 3;
  ExpectInvalid("stop layer 3");
  request_.stop_at_layer = -1;
  ExpectInvalid("stop layer -1");
  request_.stop_at_layer.reset();
  request_.start_layer = 1;
  ExpectInvalid("needs a start residual");
  request_.start_residual = at::zeros({1, 5, 15});
  ExpectInvalid("[1, 5, 16]");
  request_.start_residual = at::zeros({1, 5, 16});
  request_.captures = {Point("resid_pre0")};
  ExpectInvalid("before the start");
  request_.captures = {Point("resid_pre1")};
  EXPECT_TRUE(model_->Forward(request_).ok());
}

TEST_F(ForwardTest, RefusesPointsThatTheModelLacks) {
  request_.captures = {HookPoint{HookKind::kRotQ, 0}};
  EXPECT_EQ(model_->Forward(request_).status().code(),
            absl::StatusCode::kNotFound);
  request_.captures = {HookPoint{HookKind::kResidPre, 2}};
  ExpectInvalid("layer 2");
  request_.captures = {HookPoint{HookKind::kResidPre, -1}};
  EXPECT_FALSE(model_->Forward(request_).ok());
  request_.captures = {HookPoint{HookKind::kEmbed, 1}};
  EXPECT_FALSE(model_->Forward(request_).ok());
}

TEST_F(ForwardTest, APollEndsThePass) {
  int polls = 0;
  request_.logits = true;
  request_.poll = [&] {
    return ++polls == 2 ? absl::CancelledError("gone") : absl::OkStatus();
  };
  EXPECT_EQ(model_->Forward(request_).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(polls, 2);
}

TEST_F(ForwardTest, AnEditMustKeepTheShapeAndMayFail) {
  request_.edits = {Point("resid_mid1")};
  request_.logits = true;
  ExpectInvalid("edit function");
  request_.edit = [](const HookPoint&, at::Tensor* value) {
    *value = value->narrow(1, 0, 1);
    return absl::OkStatus();
  };
  ExpectInvalid("blocks.1.hook_resid_mid");
  request_.edit = [](const HookPoint&, at::Tensor*) {
    return absl::NotFoundError("mean");
  };
  EXPECT_EQ(model_->Forward(request_).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ForwardTest, AnEditDoesNotReachWhatWasCapturedBefore) {
  request_.captures = {Point("resid_mid0"), Point("mlp_in0"),
                       Point("resid_post0")};
  const auto before = model_->Forward(request_);
  ASSERT_TRUE(before.ok()) << before.status();
  request_.edits = {Point("mlp_in0")};
  request_.edit = [](const HookPoint&, at::Tensor* value) {
    value->zero_();
    return absl::OkStatus();
  };
  const auto after = model_->Forward(request_);
  ASSERT_TRUE(after.ok()) << after.status();
  const auto equal = [&](const char* name) {
    return at::equal(before->captures.at(Point(name)),
                     after->captures.at(Point(name)));
  };
  EXPECT_TRUE(equal("resid_mid0"));
  EXPECT_FALSE(equal("mlp_in0"));
  EXPECT_FALSE(equal("resid_post0"));
}

// The identities of a block, which a pass must keep whatever it fuses.
TEST_F(ForwardTest, ThePartsOfABlockAddUp) {
  for (const HookPoint& point : AllHookPoints(model_->config())) {
    request_.captures.insert(point);
  }
  const auto result = model_->Forward(request_);
  ASSERT_TRUE(result.ok()) << result.status();
  const auto value = [&](const char* name) {
    return result->captures.at(Point(name));
  };
  EXPECT_TRUE(at::allclose(value("resid_pre1") + value("attn_out1"),
                           value("resid_mid1"), 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(value("resid_mid1") + value("mlp_out1"),
                           value("resid_post1"), 1e-6, 1e-6));
  EXPECT_TRUE(
      at::allclose(value("pattern1").sum(-1), at::ones({1, 2, 5}), 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(value("result1").sum(2) +
                               model_->weights().blocks[1].attention_out.bias(),
                           value("attn_out1"), 1e-5, 1e-5));
  for (const auto& [point, tensor] : result->captures) {
    EXPECT_TRUE(tensor.is_contiguous()) << HookName(point);
  }
}

TEST_F(ForwardTest, UnembedsChosenRows) {
  for (const Processing processing : {Processing::kRaw, Processing::kFolded}) {
    const auto model = Load({.processing = processing});
    ASSERT_TRUE(model.ok()) << model.status();
    request_.captures = {Point("unembed.hook_in")};
    request_.logits = true;
    const auto result = (*model)->Forward(request_);
    ASSERT_TRUE(result.ok()) << result.status();
    const at::Tensor rows =
        result->captures.at(Point("unembed.hook_in")).select(1, 2);
    const auto logits = (*model)->Unembed(rows);
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_TRUE(at::allclose(*logits, result->logits.select(1, 2), 1e-5, 1e-5));
  }
  EXPECT_EQ(model_->Unembed(at::zeros({2, 3})).status().code(),
            absl::StatusCode::kInternal);
}

TEST_F(ForwardTest, AskingForNothingAnswersNothing) {
  const auto result = model_->Forward(request_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->captures.empty());
  EXPECT_FALSE(result->logits.defined());
  EXPECT_FALSE(result->residual.defined());
}

}  // namespace
}  // namespace cupola::model
