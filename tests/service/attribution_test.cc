// Attribution and weights through the C++ client, on a tiny random model: the
// numbers have to agree with each other.

#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/files/tiny_model.h"
#include "tests/service/proto_tensors.h"
#include "tests/service/server_fixture.h"

namespace cupola::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

class AttributionTest : public ServerFixture {
 protected:
  static v1::AttributeRequest Asked(const std::string& text) {
    v1::AttributeRequest request;
    request.set_model("tiny");
    request.mutable_prompts()->add_prompts()->set_text(text);
    request.mutable_positions()->mutable_every_prompt()->add_values(-1);
    return request;
  }
};

TEST_F(AttributionTest, ComponentsSumToTheLogit) {
  v1::AttributeRequest request = Asked("what closes it");
  request.mutable_logits()->add_tokens()->add_ids('a');
  request.add_split_dictionaries("tiny/sae");
  const auto answer = client().Attribute(request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  // The residual before layer 1 in two parts, and what layer 1 adds.
  EXPECT_THAT(answer->components(),
              ElementsAre("1_pre_reconstruction", "1_pre_error", "1_attn_out",
                          "1_mlp_out"));
  const auto values = Values<float>(answer->values().data());
  const auto total = Values<float>(answer->total().data());
  const auto bias = Values<float>(answer->bias().data());
  ASSERT_EQ(total.size(), 1u);
  const float sum = std::accumulate(values.begin(), values.end(), 0.0f);
  EXPECT_NEAR(sum, total[0], 1e-4);

  // The lens at the last residual says the same logit.
  v1::LogitLensRequest lens;
  lens.set_model("tiny");
  *lens.mutable_prompts() = request.prompts();
  *lens.mutable_positions() = request.positions();
  lens.add_tokens('a');
  const auto seen = client().LogitLens(lens);
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_NEAR(Values<float>(seen->logits().data()).back(), total[0] + bias[0],
              1e-4);
}

TEST_F(AttributionTest, WeightsOfALatent) {
  v1::WeightRequest request;
  request.set_dictionary("tiny/sae");
  request.set_name("W_dec");
  request.add_rows(3);
  request.add_rows(5);
  const auto rows = client().GetWeight(request);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_THAT(rows->values().shape(), ElementsAre(2, kTinyWidth));
  const auto values = Values<float>(rows->values().data());

  v1::LatentWeightsRequest products;
  products.set_dictionary("tiny/sae");
  products.mutable_gram()->add_latents(3);
  products.mutable_gram()->add_latents(5);
  products.mutable_gram()->set_inner_products(true);
  const auto gram = client().GetLatentWeights(products);
  ASSERT_TRUE(gram.ok()) << gram.status();
  std::vector<float> expected;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      expected.push_back(
          std::inner_product(values.begin() + i * kTinyWidth,
                             values.begin() + (i + 1) * kTinyWidth,
                             values.begin() + j * kTinyWidth, 0.0f));
    }
  }
  EXPECT_THAT(Values<float>(gram->values().data()),
              Pointwise(FloatNear(1e-4f), expected));
}

TEST_F(AttributionTest, ABadRequestNamesItsField) {
  v1::AttributeRequest request = Asked("a");
  request.mutable_logits()->add_tokens()->add_ids(kTinyVocabulary);
  const auto answer = client().Attribute(request);
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(answer.status().message()),
              HasSubstr(std::to_string(kTinyVocabulary)));
}

}  // namespace
}  // namespace cupola::testing
