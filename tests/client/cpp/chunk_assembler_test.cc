#include "client/cpp/chunk_assembler.h"

#include <string>
#include <vector>

#include "cupola/v1/analysis.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola {
namespace {

using ::testing::HasSubstr;

void Announce(v1::Tensor* tensor, v1::DType dtype,
              const std::vector<int64_t>& shape) {
  tensor->set_dtype(dtype);
  tensor->mutable_shape()->Assign(shape.begin(), shape.end());
}

// values before prompt before position, whatever order they were set in.
v1::FeaturesResponse::Header Header() {
  v1::FeaturesResponse::Header header;
  Announce(header.mutable_position(), v1::INT32, {1});
  Announce(header.mutable_prompt(), v1::INT32, {1});
  Announce(header.mutable_features()->mutable_values(), v1::FLOAT32, {2});
  Announce(header.mutable_features()->mutable_indices(), v1::UINT32, {0});
  return header;
}

TEST(ChunkAssemblerTest, ChunksMayBreakAnywhere) {
  const std::string bytes = "aaaabbbbccccdddd";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    v1::FeaturesResponse::Header header = Header();
    auto assembler = ChunkAssembler::Create(&header, 16);
    ASSERT_TRUE(assembler.ok()) << assembler.status();
    for (size_t at = 0; at < bytes.size(); at += step) {
      EXPECT_TRUE(assembler->Append(bytes.substr(at, step)).ok());
    }
    EXPECT_TRUE(assembler->Finish().ok());
    EXPECT_EQ(header.features().values().data(), "aaaabbbb");
    EXPECT_EQ(header.features().indices().data(), "");
    EXPECT_EQ(header.prompt().data(), "cccc");
    EXPECT_EQ(header.position().data(), "dddd");
  }
}

TEST(ChunkAssemblerTest, NothingToCome) {
  v1::FeaturesResponse::Header header = Header();
  auto assembler = ChunkAssembler::Create(&header, 0);
  ASSERT_TRUE(assembler.ok());
  EXPECT_TRUE(assembler->Finish().ok());
  EXPECT_EQ(assembler->Append("x").code(), absl::StatusCode::kDataLoss);
}

TEST(ChunkAssemblerTest, TooFewAndTooManyBytes) {
  v1::FeaturesResponse::Header header = Header();
  auto assembler = ChunkAssembler::Create(&header, 16);
  ASSERT_TRUE(assembler.ok());
  EXPECT_TRUE(assembler->Append("0123456789").ok());
  EXPECT_EQ(assembler->Finish().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(assembler->Append("0123456789").code(),
            absl::StatusCode::kDataLoss);
}

TEST(ChunkAssemblerTest, ShapesMustAddUp) {
  for (const int64_t announced : {15, 17, 8}) {
    v1::FeaturesResponse::Header header = Header();
    EXPECT_EQ(ChunkAssembler::Create(&header, announced).status().code(),
              absl::StatusCode::kDataLoss)
        << announced;
  }
}

TEST(ChunkAssemblerTest, HostileShapes) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{-1}, {int64_t{1} << 62, 4}, {1, -4, -4}}) {
    v1::FeaturesResponse::Header header;
    Announce(header.mutable_prompt(), v1::INT32, shape);
    EXPECT_FALSE(ChunkAssembler::Create(&header, 64).ok());
  }
}

}  // namespace
}  // namespace cupola
