#include "server/engine/activation_stores.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/to_array.h"

namespace cupola::engine {
namespace {

namespace fs = std::filesystem;
using storage::DType;
using ::testing::HasSubstr;

class ActivationStoresTest : public testing::Test {
 protected:
  ActivationStoresTest() : directory_(testing::TempDir() + "/activations") {
    fs::remove_all(directory_);
    Open({});
  }
  ~ActivationStoresTest() override { fs::remove_all(directory_); }

  void Open(ActivationStores::Options options) {
    stores_.reset();
    options.directory = directory_;
    stores_ = ActivationStores::Open(std::move(options));
  }
  static StoreAbout About(uint8_t key, absl::Time created = absl::Now()) {
    StoreAbout about;
    about.key[0] = key;
    about.provenance.model = "a model";
    about.provenance.dictionaries = {{"a dictionary", {3}}};
    about.d_sae = 10;
    about.tokens = 5;
    about.chunks = 2;
    about.created = absl::FromUnixMicros(absl::ToUnixMicros(created));
    return about;
  }
  // Tokens [first, first + count): token t has latent t with the value t + 1
  // and, where t is odd, latent 9 with 0.5.
  static StoredTokens Tokens(int first, int count) {
    std::vector<int64_t> indptr{0};
    std::vector<uint32_t> latents;
    std::vector<float> values;
    StoredTokens tokens;
    for (int t = first; t < first + count; ++t) {
      latents.push_back(t);
      values.push_back(static_cast<float>(t + 1));
      if (t % 2 == 1) {
        latents.push_back(9);
        values.push_back(0.5);
      }
      indptr.push_back(static_cast<int64_t>(latents.size()));
      tokens.row.push_back(100 + t);
      tokens.position.push_back(t);
    }
    tokens.features = {ToVector(DType::kInt64, indptr),
                       ToVector(DType::kUInt32, latents),
                       ToVector(DType::kFloat32, values), 10};
    return tokens;
  }
  std::shared_ptr<ActivationStore> Make(const StoreAbout& about) {
    auto store = stores_->Make(about);
    EXPECT_TRUE(store.ok()) << store.status();
    return *store;
  }
  std::string Path(uint8_t key) const {
    return directory_ + "/" + storage::ToHex(About(key).key) + ".activations";
  }
  static void ExpectSame(const StoredTokens& one, const StoredTokens& other) {
    EXPECT_EQ(one.features.indptr, other.features.indptr);
    EXPECT_EQ(one.features.indices, other.features.indices);
    EXPECT_EQ(one.features.values, other.features.values);
    EXPECT_EQ(one.row, other.row);
    EXPECT_EQ(one.position, other.position);
  }

  const std::string directory_;
  std::unique_ptr<ActivationStores> stores_;
};

TEST_F(ActivationStoresTest, WhatIsWrittenIsReadByChunksAndTokens) {
  const StoreAbout about = About(1);
  auto store = Make(about);
  EXPECT_EQ(Make(about), store);
  // The later chunk first, as shards do.
  ASSERT_TRUE(store->Write(1, Tokens(3, 2)).ok());
  EXPECT_FALSE(store->Info().complete());
  ASSERT_TRUE(store->Write(0, Tokens(0, 3)).ok());
  for (int turn = 0; turn < 2; ++turn) {
    std::shared_ptr<const ActivationStore> read = stores_->Find(about.key);
    ASSERT_NE(read, nullptr);
    const StoreInfo info = read->Info();
    EXPECT_TRUE(info.complete());
    EXPECT_EQ(info.tokens_there, 5);
    EXPECT_EQ(info.entries, 7);
    EXPECT_EQ(info.created, about.created);
    EXPECT_EQ(info.bytes, static_cast<int64_t>(fs::file_size(Path(1))));
    EXPECT_EQ(info.provenance.dictionaries, about.provenance.dictionaries);
    ExpectSame(*read->Read(1), Tokens(3, 2));
    for (int first = 0; first < 5; ++first) {
      for (int count = 1; count <= 5 - first; ++count) {
        const auto some = read->ReadTokens(first, count, 1 << 20);
        ASSERT_TRUE(some.ok()) << some.status();
        ExpectSame(*some, Tokens(first, count));
      }
    }
    EXPECT_TRUE(
        absl::IsResourceExhausted(read->ReadTokens(0, 5, 100).status()));
    store.reset();
    Open({});  // and again from the disk
  }
}

TEST_F(ActivationStoresTest, PayloadsThatAreNoneAreDataLoss) {
  { Make(About(1)); }
  stores_.reset();
  auto file = storage::ChunkFile::Open(Path(1));
  ASSERT_TRUE(file.ok()) << file.status();
  const auto payload = [](std::vector<int64_t> head, size_t zeros) {
    std::string bytes(reinterpret_cast<const char*>(head.data()),
                      8 * head.size());
    return bytes + std::string(zeros, '\0');
  };
  const std::vector<std::string> bad = {
      "",
      payload({1}, 0),
      payload({-1, 0}, 0),
      payload({1, -1}, 8),
      payload({int64_t{1} << 60, 0}, 16),
      payload({0, int64_t{1} << 61}, 0),
      payload({1, 1}, 23),      // too short
      payload({1, 1}, 16 + 8),  // no latent is active, but there is one
  };
  for (size_t i = 0; i < bad.size(); ++i) {
    ASSERT_TRUE((*file)->Append(static_cast<int64_t>(i), 1, bad[i]).ok());
  }
  // One token with latent 10 of 10.
  std::string outside = payload({1, 1, 0}, 4);
  for (const int32_t word : {1, 10, 0x3f800000}) {
    outside.append(reinterpret_cast<const char*>(&word), 4);
  }
  ASSERT_TRUE((*file)->Append(100, 1, outside).ok());
  file->reset();
  Open({});
  const auto store = stores_->Find(About(1).key);
  ASSERT_NE(store, nullptr);
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_TRUE(absl::IsDataLoss(store->Read(i).status())) << i;
  }
  EXPECT_TRUE(absl::IsDataLoss(store->Read(100).status()));
}

TEST_F(ActivationStoresTest, KeepsToTheQuota) {
  ActivationStores::Options options;
  options.max_bytes = 1500;
  Open(options);
  auto store = Make(About(1));
  const int64_t about_bytes = stores_->Bytes();
  ASSERT_LT(about_bytes, 1300);
  const absl::Status full = [&] {
    for (int i = 0; i < 20; ++i) {
      const absl::Status status = store->Write(i, Tokens(0, 3));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }();
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_THAT(full.message(), HasSubstr("accepted: 1500: delete some"));
  ASSERT_TRUE(stores_->Delete(storage::ToHex(About(1).key)).ok());
  EXPECT_EQ(stores_->Bytes(), 0);
  EXPECT_FALSE(fs::exists(Path(1)));
}

TEST_F(ActivationStoresTest, WhatAJobWritesIsNotDeleted) {
  bool in_use = true;
  ActivationStores::Options options;
  options.keep = absl::Seconds(10);
  options.in_use = [&](const auto&) { return in_use; };
  Open(options);
  Make(About(1, absl::Now() - absl::Seconds(20)));
  Make(About(2));
  const std::string key = storage::ToHex(About(1).key);
  const absl::Status refused = stores_->Delete(key);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_EQ(stores_->List()->size(), 2u);
  in_use = false;
  EXPECT_EQ(stores_->List()->size(), 1u);  // it has expired meanwhile
  EXPECT_FALSE(fs::exists(Path(1)));
  EXPECT_TRUE(absl::IsNotFound(stores_->Delete(key)));
  EXPECT_TRUE(absl::IsNotFound(stores_->Get("no key").status()));
}

TEST_F(ActivationStoresTest, AFileThatIsNoneIsPassedOverAndReplaced) {
  { Make(About(1)); }
  stores_.reset();
  fs::resize_file(Path(1), 30);
  fs::copy_file(Path(1), Path(2));
  Open({});
  EXPECT_TRUE(stores_->List()->empty());
  EXPECT_TRUE(Make(About(1))->Write(0, Tokens(0, 3)).ok());
  EXPECT_EQ(stores_->List()->size(), 1u);
}

TEST_F(ActivationStoresTest, WithoutADirectoryEachCallSaysSo) {
  stores_ = ActivationStores::Open({});
  EXPECT_TRUE(absl::IsFailedPrecondition(stores_->List().status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(stores_->Make(About(1)).status()));
  EXPECT_EQ(stores_->Find(About(1).key), nullptr);
}

}  // namespace
}  // namespace cupola::engine
