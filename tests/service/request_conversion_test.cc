#include "server/service/request_conversion.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "tests/service/proto_tensors.h"

namespace cupola::service {
namespace {

using ::cupola::testing::MakeTensor;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
  return message;
}

template <typename T>
void ExpectRefused(const absl::StatusOr<T>& result, absl::StatusCode code,
                   const std::vector<std::string>& parts) {
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), code);
  for (const std::string& part : parts) {
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(part));
  }
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(RequestConversionTest, FeaturesOfPrompts) {
  const auto plain = FromProto(Parse<v1::FeaturesRequest>(R"pb(
    dictionary: "m/d"
    prompts {
      prompts { text: "ab" }
      prompts { tokens { ids: 7 ids: 0 } }
      prepend_bos: false
    }
    positions {
      per_prompt {
        lists { values: -1 }
        lists {}
      }
    }
    processing: FOLDED
    latents: 3
    latents: 1
    top_k: 5
    min_activation: 0.5
  )pb"));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->dictionary, "m/d");
  ASSERT_TRUE(plain->prompts.has_value());
  ASSERT_EQ(plain->prompts->prompts.size(), 2u);
  EXPECT_TRUE(plain->prompts->prompts[0].is_text);
  EXPECT_EQ(plain->prompts->prompts[0].text, "ab");
  EXPECT_FALSE(plain->prompts->prompts[1].is_text);
  EXPECT_THAT(plain->prompts->prompts[1].ids, ElementsAre(7, 0));
  EXPECT_EQ(plain->prompts->prepend_bos, std::optional<bool>(false));
  EXPECT_EQ(plain->positions.kind, engine::Positions::Kind::kPerPrompt);
  EXPECT_THAT(plain->positions.lists,
              ElementsAre(ElementsAre(-1), ElementsAre()));
  EXPECT_EQ(plain->processing, std::optional(model::Processing::kFolded));
  EXPECT_THAT(plain->latents, ElementsAre(3, 1));
  EXPECT_EQ(plain->top_k, 5u);
  EXPECT_EQ(plain->min_activation, 0.5f);
  EXPECT_FALSE(plain->inputs.has_value());
}

TEST(RequestConversionTest, UnsetFieldsStayUnset) {
  const auto plain = FromProto(
      Parse<v1::FeaturesRequest>(R"pb(dictionary: "d"
                                      prompts { prompts { text: "a" } })pb"));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->prompts->prepend_bos, std::nullopt);
  EXPECT_EQ(plain->positions.kind, engine::Positions::Kind::kAll);
  EXPECT_EQ(plain->processing, std::nullopt);
  EXPECT_TRUE(plain->latents.empty());
  EXPECT_EQ(plain->top_k, 0u);
}

TEST(RequestConversionTest, FeaturesOfInputsMovesTheirBytes) {
  v1::FeaturesRequest request;
  request.set_dictionary("d");
  *request.mutable_inputs() =
      MakeTensor<float>(v1::FLOAT32, {2, 3}, {1, 2, 3, 4, 5, 6});
  const auto plain = FromProto(request);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FALSE(plain->prompts.has_value());
  EXPECT_THAT(plain->inputs->shape, ElementsAre(2, 3));
  EXPECT_EQ(plain->inputs->bytes, request.inputs().data());
}

TEST(RequestConversionTest, TokenizeTakesEmptyPrompts) {
  const auto plain = FromProto(Parse<v1::TokenizeRequest>(
      R"pb(model: "m"
           prompts {
             prompts { text: "" }
             prompts { tokens {} }
           })pb"));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->prompts.prompts.size(), 2u);
}

TEST(RequestConversionTest, ActivationsDefaultToFloat32) {
  const auto plain = FromProto(Parse<v1::ActivationsRequest>(
      R"pb(model: "m"
           prompts { prompts { text: "a" } }
           hooks: "hook_embed"
           positions { every_prompt { values: 0 values: -2 } })pb"));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->dtype, storage::DType::kFloat32);
  EXPECT_THAT(plain->hooks, ElementsAre("hook_embed"));
  EXPECT_THAT(plain->positions.lists, ElementsAre(ElementsAre(0, -2)));
}

// What is wrong, a good request's change, and what the message must say.
struct BadFeatures {
  const char* text;
  std::vector<std::string> says;
};

TEST(RequestConversionTest, BadFeaturesRequests) {
  const std::vector<BadFeatures> cases = {
      {R"pb(prompts { prompts { text: "a" } })pb", {"dictionary", "empty"}},
      {R"pb(dictionary: "d")pb", {"no source", "prompts or inputs"}},
      {R"pb(dictionary: "d"
            prompts {})pb",
       {"prompts is empty"}},
      {R"pb(dictionary: "d"
            prompts { prompts {} })pb",
       {"prompts.prompts[0]", "text or tokens"}},
      {R"pb(dictionary: "d"
            prompts {
              prompts { text: "a" }
              prompts { text: "" }
            })pb",
       {"prompts.prompts[1].text is empty"}},
      {R"pb(dictionary: "d"
            prompts { prompts { tokens {} } })pb",
       {"prompts.prompts[0].tokens.ids is empty"}},
      {R"pb(dictionary: "d"
            prompts { prompts { tokens { ids: 1 ids: 4294967295 } } })pb",
       {"tokens.ids[1] is 4294967295", "0 to 2147483647"}},
      {R"pb(dictionary: "d"
            prompts {
              prompts { tokens { ids: 1 } }
              prepend_bos: true
            })pb",
       {"prepend_bos is true", "token ids"}},
      {R"pb(dictionary: "d"
            prompts { prompts { text: "a" } }
            positions { every_prompt {} })pb",
       {"positions.every_prompt.values is empty"}},
      {R"pb(dictionary: "d"
            prompts { prompts { text: "a" } }
            positions {
              per_prompt {
                lists {}
                lists {}
              }
            })pb",
       {"positions.per_prompt has 2 lists", "accepted: 1"}},
      {R"pb(dictionary: "d"
            prompts { prompts { text: "a" } }
            min_activation: nan)pb",
       {"min_activation is nan"}},
      {R"pb(dictionary: "d"
            prompts { prompts { text: "a" } }
            min_activation: -0.5)pb",
       {"min_activation is -0.5", ">= 0"}},
      {R"pb(dictionary: "d"
            prompts { prompts { text: "a" } }
            min_activation: inf)pb",
       {"min_activation is inf"}},
  };
  for (const BadFeatures& bad : cases) {
    SCOPED_TRACE(bad.text);
    ExpectRefused(FromProto(Parse<v1::FeaturesRequest>(bad.text)), kInvalid,
                  bad.says);
  }
}

TEST(RequestConversionTest, UnknownEnumValues) {
  auto features =
      Parse<v1::FeaturesRequest>(R"pb(dictionary: "d"
                                      prompts { prompts { text: "a" } })pb");
  features.set_processing(static_cast<v1::Processing>(9));
  ExpectRefused(FromProto(features), kInvalid, {"processing is 9", "FOLDED"});

  auto activations =
      Parse<v1::ActivationsRequest>(R"pb(model: "m"
                                         prompts { prompts { text: "a" } }
                                         hooks: "h")pb");
  activations.set_dtype(v1::INT32);
  ExpectRefused(FromProto(activations), kInvalid,
                {"dtype is", "INT32", "BFLOAT16"});
  activations.set_dtype(static_cast<v1::DType>(99));
  ExpectRefused(FromProto(activations), kInvalid, {"dtype is 99"});
}

TEST(RequestConversionTest, ActivationsNeedHooks) {
  ExpectRefused(FromProto(Parse<v1::ActivationsRequest>(
                    R"pb(model: "m"
                         prompts { prompts { text: "a" } })pb")),
                kInvalid, {"hooks is empty"});
  ExpectRefused(FromProto(Parse<v1::ActivationsRequest>(
                    R"pb(model: "m"
                         prompts { prompts { text: "a" } }
                         hooks: "h"
                         hooks: "")pb")),
                kInvalid, {"hooks[1] is empty"});
}

TEST(RequestConversionTest, TooManyPromptsTellsBothNumbers) {
  v1::TokenizeRequest request;
  request.set_model("m");
  for (int i = 0; i <= kMaxPrompts; ++i) {
    request.mutable_prompts()->add_prompts()->set_text("a");
  }
  ExpectRefused(FromProto(request), absl::StatusCode::kResourceExhausted,
                {"65537", "65536"});
}

v1::FeaturesRequest WithInputs(v1::Tensor tensor) {
  v1::FeaturesRequest request;
  request.set_dictionary("d");
  *request.mutable_inputs() = std::move(tensor);
  return request;
}

TEST(RequestConversionTest, BadInputs) {
  const std::vector<float> six = {1, 2, 3, 4, 5, 6};
  ExpectRefused(FromProto(WithInputs(MakeTensor(v1::FLOAT16, {2, 3}, six))),
                kInvalid, {"inputs.dtype is FLOAT16", "FLOAT32"});
  ExpectRefused(FromProto(WithInputs(
                    MakeTensor(static_cast<v1::DType>(77), {2, 3}, six))),
                kInvalid, {"inputs.dtype is 77"});
  ExpectRefused(FromProto(WithInputs(MakeTensor(v1::FLOAT32, {6}, six))),
                kInvalid, {"inputs.shape is [6]", "2 dimensions"});
  ExpectRefused(FromProto(WithInputs(MakeTensor(v1::FLOAT32, {2, 4}, six))),
                kInvalid, {"inputs.data has 24 bytes", "[2, 4]", "needs 32"});
  ExpectRefused(FromProto(WithInputs(MakeTensor(v1::FLOAT32, {-2, -3}, six))),
                kInvalid, {"[-2, -3]", ">= 0"});
  ExpectRefused(
      FromProto(WithInputs(MakeTensor<float>(v1::FLOAT32, {0, 3}, {}))),
      kInvalid, {"[0, 3]", "at least one row"});
  // 2^62 * 4 * 4 bytes wrap around to 0 in 64 bits.
  ExpectRefused(FromProto(WithInputs(
                    MakeTensor<float>(v1::FLOAT32, {int64_t{1} << 62, 4}, {}))),
                kInvalid, {"inputs.data has 0 bytes", "int64"});
  ExpectRefused(
      FromProto(WithInputs(MakeTensor<float>(
          v1::FLOAT32, {1, 2}, {1, std::numeric_limits<float>::quiet_NaN()}))),
      kInvalid, {"inputs holds nan at element 1"});
}

TEST(RequestConversionTest, PositionsContradictInputs) {
  auto request = WithInputs(MakeTensor<float>(v1::FLOAT32, {1, 2}, {1, 2}));
  request.mutable_positions()->mutable_every_prompt()->add_values(0);
  ExpectRefused(FromProto(request), kInvalid, {"positions", "inputs"});
}

v1::ReconstructRequest WithRows(std::vector<int64_t> indptr,
                                std::vector<uint32_t> indices,
                                std::vector<float> values, int64_t columns) {
  v1::ReconstructRequest request;
  request.set_dictionary("d");
  v1::SparseRows* rows = request.mutable_features();
  const auto size = [](const auto& v) {
    return static_cast<int64_t>(v.size());
  };
  *rows->mutable_indptr() = MakeTensor(v1::INT64, {size(indptr)}, indptr);
  *rows->mutable_indices() = MakeTensor(v1::UINT32, {size(indices)}, indices);
  *rows->mutable_values() = MakeTensor(v1::FLOAT32, {size(values)}, values);
  rows->set_columns(columns);
  return request;
}

TEST(RequestConversionTest, RowsKeepTheirInvariants) {
  const auto good = FromProto(WithRows({0, 2, 2, 3}, {1, 4, 0}, {1, 2, 3}, 5));
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->features->columns, 5);

  const auto refused = [](v1::ReconstructRequest request,
                          std::vector<std::string> says) {
    ExpectRefused(FromProto(std::move(request)), kInvalid, says);
  };
  refused(WithRows({0}, {}, {}, 5), {"features.indptr has 1", "at least 2"});
  refused(WithRows({0, 3}, {1, 2}, {1, 2}, 5), {"from 0 to 3", "entries, 2"});
  refused(WithRows({1, 2}, {1, 2}, {1, 2}, 5), {"from 1 to 2"});
  refused(WithRows({0, 2, 1, 2}, {1, 2}, {1, 2}, 5),
          {"features.indptr[2] is 1"});
  refused(WithRows({0, 9, 2}, {1, 2}, {1, 2}, 5), {"features.indptr[1] is 9"});
  refused(WithRows({0, 2}, {2, 2}, {1, 2}, 5), {"features.indices[1] is 2"});
  refused(WithRows({0, 2}, {1, 5}, {1, 2}, 5),
          {"features.indices[1] is 5", "2 to 4"});
  refused(WithRows({0, 2}, {1, 2}, {1}, 5), {"features.values has 1"});
  refused(WithRows({0, 1}, {0}, {1}, 0), {"features.columns is 0"});
  refused(WithRows({0, 1}, {0}, {INFINITY}, 5), {"features.values holds inf"});
}

TEST(RequestConversionTest, ReconstructNeedsASource) {
  v1::ReconstructRequest request;
  request.set_dictionary("d");
  ExpectRefused(FromProto(request), kInvalid,
                {"no source", "prompts, inputs or features"});
}

}  // namespace
}  // namespace cupola::service
