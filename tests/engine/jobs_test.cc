#include "server/engine/jobs.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::engine {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr char kKind[] = "sum";

// What the test sees of the work, and does to it.
struct Script {
  std::atomic<int64_t> runs{0};   // chunks begun
  std::atomic<int64_t> hold{-1};  // a chunk that waits until it is given up
  std::atomic<int64_t> fail{-1};  // a chunk that fails
  std::atomic<uint8_t> model{1};  // part of the identity
};

// Adds 1, 10, 100, ... of the digit in its specification.
class Sum : public JobWork {
 public:
  Sum(Script* script, int64_t chunks) : script_(script), chunks_(chunks) {}
  uint32_t version() const override { return 1; }
  storage::Digest identity() const override { return {script_->model.load()}; }
  int64_t chunks() const override { return chunks_; }
  int64_t tokens(int64_t) const override { return 10; }
  absl::Status RunChunk(int64_t chunk, const RequestContext& context) override {
    EXPECT_TRUE(context.bulk);
    ++script_->runs;
    if (script_->fail == chunk) return absl::InternalError("no luck");
    while (script_->hold == chunk) {
      if (*context.cancelled) return absl::CancelledError("given up");
      absl::SleepFor(absl::Milliseconds(1));
    }
    sum_ = 3 * sum_ + chunk + 1;
    return absl::OkStatus();
  }
  absl::Status Save(storage::StateWriter* state) const override {
    return state->AppendValue(sum_);
  }
  absl::Status Restore(storage::StateReader* state) override {
    return state->ReadValue(&sum_);
  }
  int64_t sum() const { return sum_; }

 private:
  Script* const script_;
  const int64_t chunks_;
  int64_t sum_ = 0;
};

int64_t Expected(int64_t chunks) {
  int64_t sum = 0;
  for (int64_t i = 0; i < chunks; ++i) sum = 3 * sum + i + 1;
  return sum;
}

class JobsTest : public testing::Test {
 protected:
  JobsTest() : directory_(testing::TempDir() + "/jobs") {
    fs::remove_all(directory_);
    fs::create_directories(testing::TempDir());
    Open();
  }
  ~JobsTest() override {
    jobs_.reset();
    fs::remove_all(directory_);
  }

  void Open() {
    jobs_.reset();
    Jobs::Options options;
    options.directory = directory_;
    options.checkpoint = absl::ZeroDuration();
    options.kinds[kKind] = [this](const std::string& specification,
                                  const RequestContext&) {
      return absl::StatusOr<std::unique_ptr<JobWork>>(
          std::make_unique<Sum>(&script_, std::stoll(specification)));
    };
    jobs_ = Jobs::Open(std::move(options));
  }

  std::string Submit(int64_t chunks) {
    const auto info = jobs_->Submit(kKind, "a sum", std::to_string(chunks),
                                    Sum(&script_, chunks));
    EXPECT_TRUE(info.ok()) << info.status();
    return info->id;
  }

  // Waits until the job's state or progress is as `wanted` wants it.
  JobInfo Await(const std::string& id,
                const std::function<bool(const JobInfo&)>& wanted) {
    auto there = std::make_shared<absl::Notification>();
    auto last = std::make_shared<JobInfo>();
    jobs_->Watch(id, [=](const absl::StatusOr<JobInfo>& info) {
      if (!info.ok()) return false;
      if (!wanted(*info)) return true;
      *last = *info;
      there->Notify();
      return false;
    });
    EXPECT_TRUE(there->WaitForNotificationWithTimeout(absl::Seconds(30)));
    return *last;
  }
  JobInfo AwaitEnd(const std::string& id) {
    return Await(id, [](const JobInfo& info) { return HasEnded(info.state); });
  }

  int64_t Result(const std::string& id) {
    const auto work = jobs_->Result(id, kKind, {});
    EXPECT_TRUE(work.ok()) << work.status();
    return work.ok() ? static_cast<const Sum&>(**work).sum() : -1;
  }

  // What a process that was killed leaves: a job that is said to run.
  void PretendACrash(const std::string& id) {
    jobs_.reset();
    auto store = storage::DurableStore::Open(directory_);
    ASSERT_TRUE(store.ok());
    std::string record = *(*store)->Get("job/" + id);
    const size_t at = record.find("\"state\":");
    ASSERT_NE(at, std::string::npos);
    record[at + 8] = '2';
    ASSERT_TRUE((*store)->Put("job/" + id, record).ok());
  }

  std::vector<fs::path> States() const {
    std::vector<fs::path> states;
    for (const auto& entry : fs::directory_iterator(directory_)) {
      if (entry.path().extension() == ".state") states.push_back(entry.path());
    }
    std::sort(states.begin(), states.end());
    return states;
  }

  const std::string directory_;
  Script script_;
  std::unique_ptr<Jobs> jobs_;
};

TEST_F(JobsTest, RunsAJobToItsEnd) {
  const std::string id = Submit(4);
  const JobInfo info = AwaitEnd(id);
  EXPECT_EQ(info.state, JobState::kDone) << info.error;
  EXPECT_EQ(info.chunks_done, 4);
  EXPECT_EQ(info.tokens_done, 40);
  EXPECT_EQ(info.tokens, 40);
  EXPECT_EQ(Result(id), Expected(4));
  EXPECT_EQ(jobs_->List()->size(), 1u);
}

TEST_F(JobsTest, TellsWhoWatchesOfEachStep) {
  script_.hold = 0;
  const std::string id = Submit(3);
  std::vector<int64_t> steps;
  absl::Notification ended;
  jobs_->Watch(id, [&](const absl::StatusOr<JobInfo>& info) {
    if (steps.empty() || steps.back() != info->chunks_done) {
      steps.push_back(info->chunks_done);
    }
    if (!HasEnded(info->state)) return true;
    ended.Notify();
    return false;
  });
  script_.hold = -1;
  ASSERT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_THAT(steps, testing::ElementsAre(0, 1, 2, 3));
}

TEST_F(JobsTest, ACancelledJobKeepsItsPartAndGoesOn) {
  script_.hold = 2;
  const std::string id = Submit(4);
  Await(id, [](const JobInfo& info) { return info.chunks_done == 2; });
  const auto cancelled = jobs_->Cancel(id);
  ASSERT_TRUE(cancelled.ok());
  EXPECT_EQ(cancelled->state, JobState::kCancelled);
  EXPECT_EQ(Result(id), Expected(2));
  script_.hold = -1;
  ASSERT_TRUE(jobs_->Resume(id).ok());
  EXPECT_EQ(AwaitEnd(id).state, JobState::kDone);
  EXPECT_EQ(Result(id), Expected(4));
}

TEST_F(JobsTest, TheNextProcessGoesOn) {
  script_.hold = 2;
  const std::string id = Submit(4);
  Await(id, [](const JobInfo& info) { return info.chunks_done == 2; });
  while (script_.runs < 3) absl::SleepFor(absl::Milliseconds(1));
  Open();
  Await(id,
        [](const JobInfo& info) { return info.state == JobState::kRunning; });
  script_.hold = -1;
  EXPECT_EQ(AwaitEnd(id).state, JobState::kDone);
  EXPECT_EQ(Result(id), Expected(4));
  // Chunk 2 twice, the others once.
  EXPECT_EQ(script_.runs, 5);
}

TEST_F(JobsTest, ADamagedCheckpointIsPassedOver) {
  script_.hold = 3;
  const std::string id = Submit(4);
  Await(id, [](const JobInfo& info) { return info.chunks_saved == 3; });
  PretendACrash(id);
  ASSERT_EQ(States().size(), 2u);
  std::fstream file(States().back(),
                    std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(-20, std::ios::end);
  file.put('!');
  file.close();
  script_.hold = -1;
  script_.runs = 0;
  Open();
  EXPECT_EQ(AwaitEnd(id).state, JobState::kDone);
  EXPECT_EQ(Result(id), Expected(4));
  EXPECT_EQ(script_.runs, 2);  // from the checkpoint after chunk 1
}

TEST_F(JobsTest, ARecordThatIsNoneIsToldByItsJobsName) {
  const std::string id = Submit(2);
  AwaitEnd(id);
  jobs_.reset();
  for (const char* record :
       {"", "[]", "{\"state\": 9}", "{\"state\": 3, \"kind\": 7}",
        "{\"state\": 3, \"chunks\": \"many\"}"}) {
    {
      auto store = storage::DurableStore::Open(directory_);
      ASSERT_TRUE(store.ok());
      ASSERT_TRUE((*store)->Put("job/" + id, record).ok());
    }
    Open();
    const absl::Status status = jobs_->List().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << record;
    EXPECT_THAT(std::string(status.message()), HasSubstr(id)) << record;
    jobs_.reset();
  }
}

TEST_F(JobsTest, WithoutAWholeCheckpointThatJobAloneIsLost) {
  script_.hold = 3;
  const std::string id = Submit(4);
  Await(id, [](const JobInfo& info) { return info.chunks_saved == 3; });
  ASSERT_TRUE(jobs_->Cancel(id).ok());
  for (const fs::path& state : States()) fs::resize_file(state, 30);
  EXPECT_EQ(jobs_->Result(id, kKind, {}).status().code(),
            absl::StatusCode::kDataLoss);
  ASSERT_TRUE(jobs_->Resume(id).ok());
  const JobInfo info = AwaitEnd(id);
  EXPECT_EQ(info.state, JobState::kFailed);
  EXPECT_THAT(info.error, HasSubstr("DATA_LOSS"));
  script_.hold = -1;
  const std::string other = Submit(2);
  EXPECT_EQ(AwaitEnd(other).state, JobState::kDone);
}

TEST_F(JobsTest, AJobThatEndsTheServerTwiceIsNotResumed) {
  script_.hold = 1;
  const std::string id = Submit(3);
  Await(id, [](const JobInfo& info) { return info.chunks_saved == 1; });
  PretendACrash(id);
  Open();
  Await(id,
        [](const JobInfo& info) { return info.state == JobState::kRunning; });
  // A process that ends in good order forgives; one that is killed does not.
  auto copy = directory_ + ".killed";
  fs::remove_all(copy);
  fs::copy(directory_, copy, fs::copy_options::recursive);
  jobs_.reset();
  fs::remove_all(directory_);
  fs::rename(copy, directory_);
  Open();
  const JobInfo info = AwaitEnd(id);
  EXPECT_EQ(info.state, JobState::kFailed);
  EXPECT_THAT(info.error, HasSubstr("2 times"));
  EXPECT_EQ(jobs_->Resume(id).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Result(id), Expected(1));
}

TEST_F(JobsTest, AFailedChunkFailsTheJobWithItsReason) {
  script_.fail = 1;
  const std::string id = Submit(3);
  const JobInfo info = AwaitEnd(id);
  EXPECT_EQ(info.state, JobState::kFailed);
  EXPECT_THAT(info.error, HasSubstr("no luck"));
  script_.fail = -1;
  ASSERT_TRUE(jobs_->Resume(id).ok());
  EXPECT_EQ(AwaitEnd(id).state, JobState::kDone);
  EXPECT_EQ(Result(id), Expected(3));
}

TEST_F(JobsTest, AnotherModelsStateIsNotGoneOnWith) {
  script_.hold = 1;
  const std::string id = Submit(3);
  Await(id, [](const JobInfo& info) { return info.chunks_saved == 1; });
  ASSERT_TRUE(jobs_->Cancel(id).ok());
  script_.model = 2;
  ASSERT_TRUE(jobs_->Resume(id).ok());
  const JobInfo info = AwaitEnd(id);
  EXPECT_EQ(info.state, JobState::kFailed);
  EXPECT_THAT(info.error, HasSubstr("another model"));
}

TEST_F(JobsTest, RefusesWhatDoesNotFitTheState) {
  script_.hold = 0;
  const std::string id = Submit(2);
  EXPECT_EQ(jobs_->Resume(id).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(jobs_->Delete(id).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(jobs_->Result(id, kKind, {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(jobs_->Get("nobody").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(jobs_->Cancel(id).ok());
  EXPECT_EQ(jobs_->Result(id, "other", {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(jobs_->Delete(id).ok());
  EXPECT_EQ(jobs_->Get(id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(States().empty());
}

TEST(JobsWithoutADirectoryTest, SayHowToGetOne) {
  const auto jobs = Jobs::Open({});
  EXPECT_EQ(jobs->List().status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(jobs->List().status().message()),
              HasSubstr("--cache_dir"));
}

}  // namespace
}  // namespace cupola::engine
