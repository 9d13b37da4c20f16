// The C++ client's questions about interventions, against a real server.

#include <cmath>
#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/service/server_fixture.h"

namespace cupola::testing {
namespace {

using ::testing::HasSubstr;

constexpr char kHook[] = "blocks.1.hook_resid_pre";

class AnalysisCallsTest : public ServerFixture {};

void AddPrompts(v1::Prompts* prompts) {
  prompts->add_prompts()->set_text("the quick brown fox");
  prompts->add_prompts()->set_text("jumps over");
}

template <typename T>
std::vector<T> Numbers(const v1::Tensor& tensor) {
  std::vector<T> numbers(tensor.data().size() / sizeof(T));
  std::memcpy(numbers.data(), tensor.data().data(), tensor.data().size());
  return numbers;
}

TEST_F(AnalysisCallsTest, RunsWithAStoredMean) {
  v1::MeanActivationRequest mean;
  mean.set_model("tiny");
  AddPrompts(mean.mutable_prompts());
  mean.set_hook(kHook);
  mean.set_name("corpus");
  const auto stored = client().MeanActivation(mean);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(stored->stored().name(), "corpus");
  EXPECT_EQ(Numbers<float>(stored->mean()).size(), 32u);

  v1::RunRequest request;
  request.set_model("tiny");
  AddPrompts(request.mutable_prompts());
  v1::Intervention* named = request.add_sets()->add_interventions();
  named->set_hook(kHook);
  named->mutable_set()->set_mean("corpus");
  v1::Intervention* given = request.add_sets()->add_interventions();
  given->set_hook(kHook);
  *given->mutable_set()->mutable_value() = stored->mean();
  request.set_output(true);
  const auto run = client().Run(request);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->variants(), 3);
  const std::vector<float> loss = Numbers<float>(run->loss());
  const size_t rows = Numbers<int32_t>(run->position()).size();
  ASSERT_EQ(loss.size(), 3 * rows);
  for (size_t i = 0; i < rows; ++i) {
    if (std::isnan(loss[i])) continue;
    EXPECT_EQ(loss[rows + i], loss[2 * rows + i]);
  }
  EXPECT_NE(loss[0], loss[rows]);

  v1::ListMeansRequest list;
  list.set_model("tiny");
  EXPECT_EQ(client().ListMeans(list)->means_size(), 1);
  v1::DeleteMeanRequest gone;
  gone.set_model("tiny");
  gone.set_name("corpus");
  gone.set_hook(kHook);
  EXPECT_TRUE(client().DeleteMean(gone).ok());
  EXPECT_EQ(client().ListMeans(list)->means_size(), 0);
  EXPECT_EQ(client().DeleteMean(gone).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(client().Run(request).status().message()),
              HasSubstr("interventions[0][0].value: \"corpus\""));
}

TEST_F(AnalysisCallsTest, AblatesTabulatesAndMeasures) {
  v1::AblateRequest ablate;
  ablate.set_dictionary("tiny/sae");
  AddPrompts(ablate.mutable_prompts());
  ablate.set_later(true);
  const auto ablated = client().Ablate(ablate);
  ASSERT_TRUE(ablated.ok()) << ablated.status();
  const size_t rows = Numbers<uint32_t>(ablated->latent()).size();
  ASSERT_GT(rows, 0u);
  EXPECT_EQ(Numbers<float>(ablated->later_loss()),
            Numbers<float>(ablated->loss()))
      << "at -2 nothing but the last token's loss is later";
  EXPECT_EQ(Numbers<float>(ablated->base_loss()).size(), 2u);

  v1::AblationTableRequest table;
  table.set_dictionary("tiny/sae");
  AddPrompts(table.mutable_prompts());
  const auto tabulated = client().TabulateAblations(table);
  ASSERT_TRUE(tabulated.ok()) << tabulated.status();
  EXPECT_GT(Numbers<uint32_t>(tabulated->latent()).size(), 0u);

  v1::QualityRequest quality;
  quality.set_dictionary("tiny/sae");
  AddPrompts(quality.mutable_prompts());
  const auto measured = client().GetQuality(quality);
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_GT(measured->l0(), 0);
  EXPECT_GT(measured->clean_loss(), 0);
}

}  // namespace
}  // namespace cupola::testing
