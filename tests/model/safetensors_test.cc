#include "server/model/safetensors.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/safetensors_writer.h"

namespace cupola::model {
namespace {

using ::testing::HasSubstr;

class SafetensorsTest : public ::testing::Test {
 protected:
  std::string Path() const { return absl::StrCat(folder_, "/x.safetensors"); }

  auto Open(absl::string_view header, absl::string_view data) {
    return OpenBytes(SafetensorsFile(header, data));
  }
  absl::StatusOr<std::shared_ptr<const SafetensorsSet>> OpenBytes(
      absl::string_view bytes) {
    WriteFile(Path(), bytes);
    return SafetensorsSet::OpenFile(Path());
  }
  // The file must be refused, and the message must say `what`.
  void ExpectRefused(absl::string_view header, absl::string_view data,
                     const std::string& what) {
    const auto set = Open(header, data);
    EXPECT_EQ(set.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(set.status().message()), HasSubstr(what));
  }

  const std::string folder_ = TestFolder();
};

TEST_F(SafetensorsTest, ReadsWhatWasWrittenInEveryDtype) {
  const at::Tensor values = at::arange(6, at::kFloat).view({2, 3}) - 2.5;
  const auto set =
      OpenBytes(SafetensorsFile({{"a", values},
                                 {"b", values.to(at::kHalf)},
                                 {"c", values.to(at::kBFloat16)}}));
  ASSERT_TRUE(set.ok()) << set.status();
  for (const char* name : {"a", "b", "c"}) {
    const auto wide = (*set)->Read(name, at::kFloat);
    ASSERT_TRUE(wide.ok()) << wide.status();
    EXPECT_TRUE(at::equal(*wide, values)) << name;
  }
  EXPECT_EQ((*set)->Read("b")->scalar_type(), at::kHalf);
  EXPECT_TRUE((*set)->Has("c"));
  EXPECT_FALSE((*set)->Has("d"));
  EXPECT_EQ((*set)->Read("d").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsTest, ConvertsTensorsLargerThanAChunk) {
  const at::Tensor values =
      (at::arange(3'000'001, at::kFloat) * 1e-3).to(at::kHalf);
  const auto set = OpenBytes(SafetensorsFile({{"a", values}}));
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_TRUE(at::equal(*(*set)->Read("a", at::kFloat), values.to(at::kFloat)));
}

TEST_F(SafetensorsTest, ListsNoTensorOfAnotherDtype) {
  const auto set = Open(
      R"({"__metadata__":{"format":"pt"},
          "mask":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
      "ab");
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_TRUE((*set)->tensors().empty());
  const absl::Status status = (*set)->Read("mask").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("U8"));
}

TEST_F(SafetensorsTest, AcceptsAnEmptyTensorAndAScalar) {
  const auto set = Open(
      R"({"none":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},
          "one":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
      absl::string_view("\0\0\x80?", 4));
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ((*set)->Read("none")->numel(), 0);
  EXPECT_EQ((*set)->Read("one")->item<float>(), 1);
}

TEST_F(SafetensorsTest, RefusesTruncatedFiles) {
  const std::string whole = SafetensorsFile({{"a", at::ones({4})}});
  for (size_t size :
       {size_t{0}, size_t{7}, size_t{8}, size_t{20}, whole.size() - 1}) {
    const auto set = OpenBytes(absl::string_view(whole).substr(0, size));
    EXPECT_EQ(set.status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
  EXPECT_TRUE(OpenBytes(whole).ok());
}

TEST_F(SafetensorsTest, RefusesAHeaderLengthBeyondTheFile) {
  for (const char last : {'\x00', '\x7f', '\xff'}) {
    std::string bytes = SafetensorsFile("{}", "");
    bytes[6] = '\x01';
    bytes[7] = last;
    EXPECT_EQ(OpenBytes(bytes).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(SafetensorsTest, RefusesOffsetsOutsideTheFile) {
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                "1234", "outside");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}})",
                "12345678", "outside");
  ExpectRefused(
      R"({"a":{"dtype":"F32","shape":[1],
          "data_offsets":[18446744073709551612,18446744073709551616]}})",
      "12345678", "data_offsets");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})",
                "12345678", "data_offsets");
}

TEST_F(SafetensorsTest, RefusesOverlappingTensors) {
  ExpectRefused(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
          "b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      "12345678", "'a' and 'b' overlap");
  ExpectRefused(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
          "b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
      "12345678", "overlap");
}

TEST_F(SafetensorsTest, RefusesShapesThatDoNotFit) {
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
                "12345678", "needs 12 bytes");
  // 2^62 * 4 wraps to 0 in 64 bits.
  ExpectRefused(
      R"({"a":{"dtype":"F32","shape":[4611686018427387904],
          "data_offsets":[0,0]}})",
      "", "not possible");
  ExpectRefused(
      R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,0],
          "data_offsets":[0,0]}})",
      "", "not possible");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})",
                "1234", "not possible");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})",
                "1234", "not possible");
}

TEST_F(SafetensorsTest, RefusesMalformedHeaders) {
  ExpectRefused("", "", "");
  ExpectRefused("[1]", "", "not an object");
  ExpectRefused("{\"a\":", "", "");
  ExpectRefused(R"({"a":3})", "", "'a'");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[1]}})", "1234", "data_offsets");
  ExpectRefused(R"({"a":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}})",
                "1234", "unknown dtype");
  ExpectRefused(R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", "1234",
                "unknown dtype");
}

TEST_F(SafetensorsTest, RefusesDeepJson) {
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100'000; ++i) deep += '[';
  ExpectRefused(deep, "", "");
}

TEST_F(SafetensorsTest, RefusesDuplicateKeys) {
  ExpectRefused(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
          "a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      "12345678", "'a' appears twice");
}

TEST_F(SafetensorsTest, NoticesAFileCutAfterItWasOpened) {
  const auto set = OpenBytes(SafetensorsFile({{"a", at::ones({1000})}}));
  ASSERT_TRUE(set.ok()) << set.status();
  std::filesystem::resize_file(Path(), 500);
  EXPECT_EQ((*set)->Read("a").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ((*set)->Read("a", at::kBFloat16).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ((*set)->ContentDigest().status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(SafetensorsTest, RefusesWhatIsNoFile) {
  EXPECT_EQ(SafetensorsSet::OpenFile(folder_).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SafetensorsSet::OpenFile(folder_ + "/none").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsSet::OpenFolder(folder_).status().code(),
            absl::StatusCode::kNotFound);
}

class ShardedTest : public ::testing::Test {
 protected:
  ShardedTest() {
    WriteFile(folder_ + "/one.safetensors",
              SafetensorsFile({{"a", at::ones({2})}}));
    WriteFile(folder_ + "/two.safetensors",
              SafetensorsFile({{"b", at::zeros({3})}}));
  }
  auto Open(absl::string_view index) {
    WriteFile(folder_ + "/model.safetensors.index.json", index);
    return SafetensorsSet::OpenFolder(folder_);
  }
  void ExpectRefused(absl::string_view index, const std::string& what) {
    const auto set = Open(index);
    EXPECT_FALSE(set.ok()) << index;
    EXPECT_THAT(std::string(set.status().message()), HasSubstr(what));
  }
  const std::string folder_ = TestFolder();
};

TEST_F(ShardedTest, HasTheSameContentAsOneFile) {
  const auto sharded =
      Open(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  EXPECT_EQ((*sharded)->Read("b")->numel(), 3);
  WriteFile(folder_ + "/model.safetensors",
            SafetensorsFile({{"a", at::ones({2})}, {"b", at::zeros({3})}}));
  const auto single = SafetensorsSet::OpenFolder(folder_);
  ASSERT_TRUE(single.ok()) << single.status();
  EXPECT_EQ(*(*sharded)->ContentDigest(), *(*single)->ContentDigest());
  // One changed number is another digest.
  WriteFile(folder_ + "/model.safetensors",
            SafetensorsFile({{"a", at::ones({2})}, {"b", at::ones({3})}}));
  EXPECT_NE(*(*SafetensorsSet::OpenFolder(folder_))->ContentDigest(),
            *(*sharded)->ContentDigest());
}

TEST_F(ShardedTest, StaysInsideItsFolder) {
  WriteFile(::testing::TempDir() + "/outside.safetensors",
            SafetensorsFile({{"a", at::ones({2})}}));
  ExpectRefused(R"({"weight_map":{"a":"../outside.safetensors"}})", "shard");
  ExpectRefused(R"({"weight_map":{"a":"/etc/passwd"}})", "shard");
  ExpectRefused(R"({"weight_map":{"a":".."}})", "shard");
  ExpectRefused(R"({"weight_map":{"a":"one.safetensors\u0000"}})", "shard");
}

TEST_F(ShardedTest, RefusesAnIndexThatDoesNotFit) {
  ExpectRefused("{}", "weight_map");
  ExpectRefused("[]", "weight_map");
  ExpectRefused(R"({"weight_map":{"a":7}})", "shard");
  ExpectRefused(R"({"weight_map":{"c":"one.safetensors"}})", "'c'");
  ExpectRefused(R"({"weight_map":{"a":"none.safetensors"}})", "none");
  WriteFile(folder_ + "/two.safetensors",
            SafetensorsFile({{"a", at::zeros({3})}}));
  ExpectRefused(
      R"({"weight_map":{"a":"one.safetensors","x":"two.safetensors"}})",
      "another shard");
}

}  // namespace
}  // namespace cupola::model
