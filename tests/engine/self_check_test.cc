#include "server/engine/self_check.h"

#include <cstring>
#include <initializer_list>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

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
  const Measurement measured = Measure(Reconstructed(), Features());
  EXPECT_EQ(measured.tokens, 2);
  EXPECT_DOUBLE_EQ(measured.l0, 2);
  EXPECT_DOUBLE_EQ(measured.fvu, 0.25);  // 0.5 / ((1-2)^2 + (3-2)^2)
  EXPECT_EQ(measured.dead_latents, 8);   // latents 1 and 2 fire
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

}  // namespace
}  // namespace cupola::engine
