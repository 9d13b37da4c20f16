#include "server/engine/datasets.h"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int64_t kMaxBytes = 1000, kRowBytes = storage::RowWriter::kRowBytes;

class DatasetsTest : public testing::Test {
 protected:
  DatasetsTest() : directory_(testing::TempDir() + "/datasets") {
    fs::remove_all(directory_);
    fs::create_directories(testing::TempDir());
    Open();
  }
  ~DatasetsTest() override {
    datasets_.reset();
    fs::remove_all(directory_);
  }

  void Open() {
    datasets_.reset();
    Datasets::Options options;
    options.directory = directory_;
    options.max_bytes = kMaxBytes;
    options.in_use = [this](const storage::Digest&) { return in_use_; };
    datasets_ = Datasets::Open(std::move(options));
  }

  static std::string DigestOf(const std::vector<std::string>& texts) {
    storage::Hasher hasher("dataset/texts/1");
    for (const std::string& text : texts) hasher.AddBytes(text);
    const storage::Digest digest = hasher.Finish();
    return std::string(digest.begin(), digest.end());
  }
  absl::StatusOr<DatasetInfo> Upload(
      const std::string& name, const std::vector<std::string>& texts,
      const Sender& sender = {}, absl::Duration keep = absl::ZeroDuration()) {
    auto upload = datasets_->Begin(name, keep, sender);
    if (!upload.ok()) return upload.status();
    if (absl::Status s = (*upload)->Append({texts, {}}); !s.ok()) return s;
    return (*upload)->Finish(DigestOf(texts));
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    const auto infos = datasets_->List();
    EXPECT_TRUE(infos.ok()) << infos.status();
    for (const DatasetInfo& info : *infos) names.push_back(info.name);
    return names;
  }
  // Of the disk itself; nothing is open meanwhile.
  std::vector<std::string> Keys(const std::string& prefix) {
    datasets_.reset();
    std::vector<std::string> keys;
    {
      auto store = storage::DurableStore::Open(directory_);
      EXPECT_TRUE(store.ok());
      keys = *(*store)->Keys(prefix);
    }
    Open();
    return keys;
  }
  void Put(const std::string& key, const std::string& value) {
    datasets_.reset();
    {
      auto store = storage::DurableStore::Open(directory_);
      ASSERT_TRUE(store.ok());
      ASSERT_TRUE((*store)->Put(key, value).ok());
    }
    Open();
  }

  const std::string directory_;
  bool in_use_ = false;
  std::unique_ptr<Datasets> datasets_;
};

TEST_F(DatasetsTest, WhatDoesNotEndLeavesNothingOnTheDisk) {
  ASSERT_TRUE(Upload("kept", {"abc"}).ok());
  const auto before = Keys("rows/");
  EXPECT_THAT(before, testing::Not(IsEmpty()));
  {
    auto half = *datasets_->Begin("half", absl::ZeroDuration());
    ASSERT_TRUE(half->Append({{"a", "b"}, {}}).ok());
    EXPECT_EQ(datasets_->Bytes(), 3 + 2 + 3 * kRowBytes);
  }
  auto wrong = *datasets_->Begin("wrong", absl::ZeroDuration());
  ASSERT_TRUE(wrong->Append({{"a"}, {}}).ok());
  EXPECT_EQ(wrong->Finish(DigestOf({"b"})).status().code(),
            absl::StatusCode::kDataLoss);
  wrong = nullptr;
  EXPECT_EQ(Upload("large", {std::string(kMaxBytes, 'x')}).status().code(),
            absl::StatusCode::kResourceExhausted);
  // The same once more, which goes when its own name does.
  ASSERT_TRUE(Upload("again", {"abc"}).ok());
  EXPECT_EQ(datasets_->Bytes(), 3 + kRowBytes);
  EXPECT_EQ(Keys("rows/"), before);
  EXPECT_THAT(Keys("unfinished/"), IsEmpty());
  ASSERT_TRUE(datasets_->Delete("kept").ok());
  EXPECT_EQ(datasets_->Read("again", 0, 1)->texts,
            std::vector<std::string>{"abc"});
  ASSERT_TRUE(datasets_->Delete("again").ok());
  EXPECT_THAT(Keys(""), IsEmpty());
  EXPECT_EQ(datasets_->Bytes(), 0);
}

TEST_F(DatasetsTest, WhatACrashLeavesGoesWithTheNextStart) {
  ASSERT_TRUE(Upload("kept", {"abc"}).ok());
  const auto before = Keys("");
  Put("rows/0000000000000a-0/b00000000", "of an upload");
  Put("unfinished/0000000000000b-0", "");
  Put("tokenized/00", "{");
  EXPECT_EQ(Keys(""), before);
  EXPECT_EQ(datasets_->Bytes(), 3 + kRowBytes);
}

TEST_F(DatasetsTest, ADamagedRecordIsToldAndTheOthersAreServed) {
  ASSERT_TRUE(Upload("good", {"abc"}).ok());
  ASSERT_TRUE(Upload("bad", {"de"}).ok());
  for (const char* record : {"", "[]", "{}", "{\"texts\": 7}"}) {
    Put("dataset/bad", record);
    EXPECT_THAT(Names(), ElementsAre("bad", "good"));
    EXPECT_THAT(datasets_->Get("bad")->error, HasSubstr("dataset/bad"));
    EXPECT_EQ(datasets_->Read("bad", 0, 1).status().code(),
              absl::StatusCode::kDataLoss);
    EXPECT_EQ(datasets_->Read("good", 0, 1)->texts,
              std::vector<std::string>{"abc"});
  }
  EXPECT_EQ(datasets_->Delete("bad", Actor{"ann", false}).code(),
            absl::StatusCode::kPermissionDenied);
  ASSERT_TRUE(datasets_->Delete("bad").ok());
  EXPECT_THAT(Names(), ElementsAre("good"));
  ASSERT_TRUE(Upload("bad", {"f"}).ok());
  Open();  // its rows go now that nothing may be theirs
  datasets_->Delete("bad").IgnoreError();
  datasets_->Delete("good").IgnoreError();
  EXPECT_THAT(Keys(""), IsEmpty());
}

TEST_F(DatasetsTest, ADatasetIsItsOwnersAndAdmins) {
  ASSERT_TRUE(Upload("hers", {"a"}, {"ann", "ann"}).ok());
  ASSERT_TRUE(Upload("nobodys", {"b"}).ok());
  Open();
  EXPECT_EQ(datasets_->Get("hers")->owner, "ann");
  for (const char* name : {"hers", "nobodys"}) {
    EXPECT_EQ(datasets_->Delete(name, Actor{"bob", false}).code(),
              absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(datasets_->Delete(name, Actor{"", false}).code(),
              absl::StatusCode::kPermissionDenied);
  }
  EXPECT_TRUE(datasets_->Read("hers", 0, 1).ok());  // by anybody
  EXPECT_TRUE(datasets_->Delete("hers", Actor{"ann", false}).ok());
  EXPECT_TRUE(datasets_->Delete("nobodys", Actor{"root", true}).ok());
}

TEST_F(DatasetsTest, OneClientHasAFewUploads) {
  std::vector<std::unique_ptr<Datasets::Upload>> uploads;
  const auto begin = [&](const std::string& client) {
    auto upload = datasets_->Begin(absl::StrCat("u", uploads.size()),
                                   absl::ZeroDuration(), {client, client});
    if (upload.ok()) uploads.push_back(*std::move(upload));
    return upload.status();
  };
  for (size_t i = 0; i < Datasets::kMaxUploadsOfClient; ++i) {
    ASSERT_TRUE(begin("ann").ok());
  }
  const absl::Status refused = begin("ann");
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("accepted: 4"));
  EXPECT_TRUE(begin("bob").ok());
  uploads.erase(uploads.begin());
  EXPECT_TRUE(begin("ann").ok());
  for (int i = 0; uploads.size() < Datasets::kMaxUploads; ++i) {
    ASSERT_TRUE(begin(absl::StrCat("c", i)).ok());
  }
  EXPECT_EQ(begin("dan").code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(DatasetsTest, ExpiryCountsFromTheEndOfTheUpload) {
  auto slow = *datasets_->Begin("slow", absl::Milliseconds(200));
  ASSERT_TRUE(slow->Append({{"a"}, {}}).ok());
  absl::SleepFor(absl::Milliseconds(250));
  const auto info = slow->Finish(DigestOf({"a"}));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_GT(info->expires - info->created, absl::Milliseconds(440));
  absl::SleepFor(absl::Milliseconds(250));
  EXPECT_THAT(Names(), IsEmpty());
  EXPECT_EQ(datasets_->Bytes(), 0);
}

TEST_F(DatasetsTest, WhatHasExpiredMakesRoom) {
  const std::vector<std::string> most = {std::string(kMaxBytes - 20, 'x')};
  ASSERT_TRUE(Upload("old", most, {}, absl::Milliseconds(1)).ok());
  auto next = *datasets_->Begin("next", absl::ZeroDuration());
  absl::SleepFor(absl::Milliseconds(5));
  EXPECT_TRUE(next->Append({most, {}}).ok());
}

TEST_F(DatasetsTest, AJobHoldsItsDataset) {
  ASSERT_TRUE(Upload("held", {"a"}, {}, absl::Milliseconds(1)).ok());
  in_use_ = true;
  absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(datasets_->Delete("held").code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(*datasets_->List(), SizeIs(1));
  in_use_ = false;
  EXPECT_THAT(*datasets_->List(), IsEmpty());
}

}  // namespace
}  // namespace cupola::engine
