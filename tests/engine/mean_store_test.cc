#include "server/engine/mean_store.h"

#include <cstring>
#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

using ::testing::HasSubstr;

storage::Array Value(std::vector<float> numbers) {
  storage::Array array{storage::DType::kFloat32,
                       {static_cast<int64_t>(numbers.size())},
                       std::string(numbers.size() * sizeof(float), '\0')};
  std::memcpy(array.bytes.data(), numbers.data(), array.bytes.size());
  return array;
}

MeanKey Key(const std::string& hook, const std::string& name,
            uint8_t model = 1) {
  MeanKey key{{}, model::Processing::kRaw, hook, name};
  key.model.fill(model);
  return key;
}

class MeanStoreTest : public ::testing::TestWithParam<bool> {
 protected:
  MeanStoreTest() {
    if (!GetParam()) return;
    directory_ = ::testing::TempDir() + "/mean_store_test";
    std::filesystem::remove_all(directory_);
  }
  std::string directory_;
};

TEST_P(MeanStoreTest, KeepsReplacesAndDeletes) {
  auto store = MeanStore::Open(directory_);
  ASSERT_TRUE(store->Put(Key("h", "a/b"), Value({1, 2}), 5).ok());
  const auto put = store->Put(Key("h", "a/b"), Value({3, 4}), 6);
  ASSERT_TRUE(put.ok()) << put.status();
  if (!directory_.empty()) {  // as a restarted process finds it
    store.reset();
    store = MeanStore::Open(directory_);
  }
  const auto found = store->Find(Key("h", "a/b"));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->value, Value({3, 4}));
  EXPECT_EQ(found->info.count, 6);
  EXPECT_EQ(found->info.digest, put->digest);
  EXPECT_EQ(found->info.key.name, "a/b");
  const auto listed = store->List(Key("", "").model);
  ASSERT_TRUE(listed.ok());
  ASSERT_EQ(listed->size(), 1u);
  EXPECT_EQ(listed->front().key.hook, "h");
  EXPECT_EQ(listed->front().shape, std::vector<int64_t>{2});
  EXPECT_EQ(store->List(Key("", "", 2).model)->size(), 0u);
  EXPECT_TRUE(store->Delete(Key("h", "a/b")).ok());
  EXPECT_EQ(store->Delete(Key("h", "a/b")).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store->Find(Key("h", "a/b")).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_P(MeanStoreTest, ANameOfOneHookStandsForItElsewhere) {
  const auto store = MeanStore::Open(directory_);
  ASSERT_TRUE(store->Put(Key("h", "x"), Value({1}), 1).ok());
  ASSERT_TRUE(store->Put(Key("h", "x", 2), Value({9}), 1).ok());
  EXPECT_EQ(store->Find(Key("g", "x"))->value, Value({1}));
  ASSERT_TRUE(store->Put(Key("f", "x"), Value({2}), 1).ok());
  EXPECT_EQ(store->Find(Key("f", "x"))->value, Value({2}));
  EXPECT_THAT(std::string(store->Find(Key("g", "x")).status().message()),
              HasSubstr("one of f, h"));
  MeanKey folded = Key("h", "x");
  folded.processing = model::Processing::kFolded;
  EXPECT_EQ(store->Find(folded).status().code(), absl::StatusCode::kNotFound);
}

TEST(MeanStore, IsBounded) {
  const auto store = MeanStore::Open("");
  for (int64_t i = 0; i < MeanStore::kMaxMeans; ++i) {
    ASSERT_TRUE(store->Put(Key("h", std::to_string(i)), Value({1}), 1).ok());
  }
  EXPECT_TRUE(store->Put(Key("h", "7"), Value({2}), 1).ok());  // in its place
  const absl::Status full = store->Put(Key("h", "x"), Value({1}), 1).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()),
              HasSubstr("4097 means of 16388 bytes; accepted: 4096 means"));
  EXPECT_EQ(MeanStore::CheckName("", "name").code(),
            absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(MemoryAndDisk, MeanStoreTest, ::testing::Bool());

}  // namespace
}  // namespace cupola::engine
