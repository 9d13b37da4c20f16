#include "storage/array.h"

#include <cstdint>
#include <optional>

#include "gtest/gtest.h"

namespace cupola::storage {
namespace {

constexpr int64_t kHuge = int64_t{1} << 62;

TEST(ArrayTest, SizesOfElements) {
  EXPECT_EQ(SizeOf(DType::kFloat32), 4);
  EXPECT_EQ(SizeOf(DType::kBFloat16), 2);
  EXPECT_EQ(SizeOf(DType::kFloat16), 2);
  EXPECT_EQ(SizeOf(DType::kFloat64), 8);
  EXPECT_EQ(SizeOf(DType::kInt32), 4);
  EXPECT_EQ(SizeOf(DType::kUInt32), 4);
  EXPECT_EQ(SizeOf(DType::kInt64), 8);
  EXPECT_EQ(SizeOf(static_cast<DType>(0)), 0);
  EXPECT_EQ(SizeOf(static_cast<DType>(8)), 0);
}

TEST(ArrayTest, ByteSizes) {
  EXPECT_EQ(ByteSize(DType::kFloat32, {}), 4);
  EXPECT_EQ(ByteSize(DType::kFloat16, {3, 5}), 30);
  EXPECT_EQ(ByteSize(DType::kInt64, {3, 0, 5}), 0);
}

TEST(ArrayTest, RefusesShapesWithoutASize) {
  EXPECT_EQ(ByteSize(DType::kFloat32, {-1}), std::nullopt);
  EXPECT_EQ(ByteSize(DType::kFloat32, {-1, -1}), std::nullopt);
  EXPECT_EQ(ByteSize(DType::kFloat32, {0, -1}), std::nullopt);
  EXPECT_EQ(ByteSize(DType::kFloat32, {kHuge}), std::nullopt);
  EXPECT_EQ(ByteSize(DType::kBFloat16, {kHuge, 2}), std::nullopt);
  EXPECT_EQ(ByteSize(static_cast<DType>(99), {1}), std::nullopt);
}

TEST(ArrayTest, AnEmptyDimensionWinsOverOverflow) {
  EXPECT_EQ(ByteSize(DType::kFloat32, {0, kHuge, kHuge}), 0);
  EXPECT_EQ(ByteSize(DType::kFloat32, {kHuge, kHuge, 0}), 0);
}

TEST(ArrayTest, Validity) {
  EXPECT_TRUE(IsValid({DType::kFloat32, {2}, std::string(8, 'x')}));
  EXPECT_FALSE(IsValid({DType::kFloat32, {2}, std::string(7, 'x')}));
  EXPECT_FALSE(IsValid({DType::kFloat32, {2}, std::string(9, 'x')}));
  EXPECT_FALSE(IsValid({DType::kFloat32, {-2}, ""}));
}

}  // namespace
}  // namespace cupola::storage
