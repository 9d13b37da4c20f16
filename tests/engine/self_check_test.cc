#include "server/engine/self_check.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/files/tiny_model.h"

namespace cupola::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

template <typename T>
Array MakeArray(storage::DType dtype, std::vector<int64_t> shape,
                std::initializer_list<T> values) {
  Array array{dtype, std::move(shape), {}};
  for (T value : values) {
    array.bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return array;
}

// Three rows of width 1; the first is a huge position 0 that must not count.
ReconstructAnswer Reconstructed() {
  ReconstructAnswer answer;
  answer.target =
      MakeArray<float>(storage::DType::kFloat32, {3, 1}, {1e6, 1, 3});
  answer.squared_error =
      MakeArray<float>(storage::DType::kFloat32, {3}, {1e9, 0.25, 0.25});
  answer.l0 = MakeArray<float>(storage::DType::kFloat32, {3}, {4000, 1, 3});
  answer.position = MakeArray<int32_t>(storage::DType::kInt32, {3}, {0, 1, 2});
  return answer;
}

FeaturesAnswer Features() {
  FeaturesAnswer answer;
  answer.features.indptr =
      MakeArray<int64_t>(storage::DType::kInt64, {4}, {0, 2, 3, 5});
  answer.features.indices =
      MakeArray<uint32_t>(storage::DType::kUInt32, {5}, {7, 8, 1, 1, 2});
  answer.features.columns = 10;
  answer.position = MakeArray<int32_t>(storage::DType::kInt32, {3}, {0, 1, 2});
  return answer;
}

TEST(Measure, LeavesTheFirstPositionOut) {
  const Measurement measured = Measure({Reconstructed()}, {Features()});
  EXPECT_EQ(measured.tokens, 2);
  EXPECT_DOUBLE_EQ(measured.l0, 2);
  EXPECT_DOUBLE_EQ(measured.fvu, 0.25);  // 0.5 / ((1-2)^2 + (3-2)^2)
  EXPECT_EQ(measured.dead_latents, 8);   // latents 1 and 2 fire
}

TEST(Measure, TakesAllTextsAsOne) {
  const Measurement one = Measure({Reconstructed()}, {Features()});
  ReconstructAnswer more = Reconstructed();
  more.target = MakeArray<float>(storage::DType::kFloat32, {3, 1}, {1e6, 5, 7});
  FeaturesAnswer fired = Features();
  fired.features.indices =
      MakeArray<uint32_t>(storage::DType::kUInt32, {5}, {7, 8, 3, 1, 2});
  const Measurement both =
      Measure({Reconstructed(), more}, {Features(), fired});
  EXPECT_EQ(both.tokens, 2 * one.tokens);
  EXPECT_DOUBLE_EQ(both.l0, one.l0);
  EXPECT_DOUBLE_EQ(both.fvu, 1.0 / 20);  // of 1, 3, 5 and 7 around 4
  EXPECT_EQ(both.dead_latents, 7);       // latents 1, 2 and 3 fire
}

TEST(Warnings, NoneWhenAsExpected) {
  dictionary::Manifest manifest;
  manifest.expected_l0 = 2;
  manifest.expected_fvu = 0.2;
  EXPECT_THAT(Warnings(manifest, {2, 2.0, 0.25, 0}, ""), IsEmpty());
}

TEST(Warnings, NameBothNumbers) {
  dictionary::Manifest manifest;
  manifest.k = 32;
  const auto warnings = Warnings(manifest, {100, 600, 6.8, 0}, "");
  ASSERT_THAT(warnings, SizeIs(2));
  EXPECT_THAT(warnings[0], AllOf(HasSubstr("600"), HasSubstr("32")));
  EXPECT_THAT(warnings[1], HasSubstr("6.8"));
}

// A check whose questions get the answers above, or a failure.
class CheckTest : public ::testing::Test {
 protected:
  CheckTest() {
    const std::string folder = ::testing::TempDir() + "/self_check_model";
    ::cupola::testing::TinyGpt2({.n_ctx = 16}).Write(folder);
    auto model = model::ModelSource::Open(folder);
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  absl::StatusOr<SelfCheckResult> Check(const dictionary::Manifest& manifest) {
    const SelfCheckAsk ask = {
        [this](ReconstructRequest request, auto done) {
          asked_.insert(request.dictionary);
          ASSERT_EQ(request.prompts->prompts.size(), 1u);  // text by text
          longest_ = std::max(longest_, request.prompts->prompts[0].ids.size());
          done(Reconstructed());
        },
        [this](FeaturesRequest request, auto done) {
          if (request.dictionary == failing_) {
            return done(absl::ResourceExhaustedError("queue full"));
          }
          done(Features());
        }};
    absl::StatusOr<SelfCheckResult> result = absl::UnknownError("not called");
    CheckAgainstManifest(
        "d", *model_, manifest, ask,
        [&](absl::StatusOr<SelfCheckResult> r) { result = std::move(r); });
    return result;
  }

  std::shared_ptr<const model::ModelSource> model_;
  std::set<std::string> asked_;
  size_t longest_ = 0;
  std::string failing_;
};

TEST_F(CheckTest, OfOneDictionary) {
  dictionary::Manifest manifest;
  manifest.context_size = 9;
  manifest.expected_l0 = 40;
  const auto result = Check(manifest);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(asked_, ElementsAre("d"));
  EXPECT_EQ(longest_, 9u);  // the texts are cut to the context
  EXPECT_DOUBLE_EQ(result->in->l0, 2);
  EXPECT_FALSE(result->out.has_value());
  EXPECT_THAT(result->warnings, ElementsAre(HasSubstr("expected 40")));
}

TEST_F(CheckTest, OfBothHalvesOfAPair) {
  dictionary::Manifest manifest;
  manifest.kind = dictionary::Kind::kPair;
  manifest.k = 10;
  manifest.expected_l0 = 2;  // said of the input half
  const auto result = Check(manifest);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(asked_, ElementsAre("d", "d:out"));
  EXPECT_TRUE(result->out.has_value());
  EXPECT_THAT(result->warnings, ElementsAre(HasSubstr("output half: L0 is")));
}

TEST_F(CheckTest, FailsWithAQuestion) {
  dictionary::Manifest manifest;
  manifest.kind = dictionary::Kind::kPair;
  for (const char* failing : {"d", "d:out"}) {
    failing_ = failing;
    EXPECT_EQ(Check(manifest).status(),
              absl::ResourceExhaustedError("queue full"));
  }
}

}  // namespace
}  // namespace cupola::engine
