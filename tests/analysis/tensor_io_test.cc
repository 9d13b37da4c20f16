#include "server/analysis/tensor_io.h"

#include "gtest/gtest.h"

namespace cupola::analysis {
namespace {

using storage::DType;

TEST(TensorIo, RoundTripsEveryType) {
  for (DType dtype :
       {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64,
        DType::kInt32, DType::kUInt32, DType::kInt64}) {
    const at::Tensor tensor =
        at::arange(6, at::kLong).reshape({2, 3}).to(ToScalarType(dtype));
    const storage::Array array = ToArray(tensor, dtype);
    EXPECT_EQ(array.dtype, dtype);
    EXPECT_EQ(array.shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(array.bytes.size(), 6u * storage::SizeOf(dtype));
    EXPECT_TRUE(at::equal(ViewOf(array), tensor));
  }
}

TEST(TensorIo, WritesRowMajorWhateverTheStrides) {
  const at::Tensor tensor = at::arange(6, at::kFloat).reshape({3, 2}).t();
  EXPECT_TRUE(at::equal(ViewOf(ToArray(tensor, DType::kFloat32)), tensor));
}

TEST(TensorIo, KeepsEmptyShapes) {
  const storage::Array array = ToArray(at::empty({0, 7}), DType::kFloat32);
  EXPECT_EQ(array.shape, (std::vector<int64_t>{0, 7}));
  EXPECT_TRUE(array.bytes.empty());
}

}  // namespace
}  // namespace cupola::analysis
