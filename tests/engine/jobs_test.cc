#include "server/engine/jobs.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/job_memory.h"

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
  // So often there is no memory: for a chunk, for what was saved.
  std::atomic<int> short_of_chunk{0}, short_of_state{0};
};

absl::Status NoMemory() {
  const JobMemory memory(2);
  const auto all = memory.Take(2);
  return memory.Take(1).status();
}

// So many chunks as its specification says, each of which triples the sum and
// adds its number: their order is in the result.
class Sum : public JobWork {
 public:
  Sum(Script* script, int64_t chunks) : script_(script), chunks_(chunks) {}
  uint32_t version() const override { return 1; }
  storage::Digest identity() const override { return {script_->model.load()}; }
  JobProvenance provenance() const override {
    JobProvenance provenance;
    provenance.model = "a model";
    provenance.dictionaries = {{"a dictionary", {7}}};
    provenance.dataset = "a dataset";
    provenance.dataset_digest = {9};
    provenance.parameters = "{}";
    return provenance;
  }
  absl::Status Begin() override { return absl::OkStatus(); }
  int64_t chunks() const override { return chunks_; }
  int64_t tokens(int64_t) const override { return 10; }
  absl::Status RunChunk(int64_t chunk, const RequestContext& context) override {
    EXPECT_TRUE(context.bulk);
    if (--script_->short_of_chunk >= 0) return NoMemory();
    ++script_->runs;
    if (script_->fail == chunk) return absl::InternalError("no luck");
    while (script_->hold == chunk) {
      if (*context.cancelled) return absl::CancelledError("given up");
      absl::SleepFor(absl::Milliseconds(1));
    }
    sum_ = 3 * sum_ + chunk + 1;
    ++added_;
    return absl::OkStatus();
  }
  absl::Status Save(storage::StateWriter* state) const override {
    const absl::Status status = state->AppendValue(sum_);
    return status.ok() ? state->AppendValue(added_) : status;
  }
  absl::Status Restore(storage::StateReader* state) override {
    if (--script_->short_of_state >= 0) return NoMemory();
    const absl::Status status = state->ReadValue(&sum_);
    return status.ok() ? state->ReadValue(&added_) : status;
  }
  absl::Status Merge(const JobWork& later) override {
    const Sum& other = static_cast<const Sum&>(later);
    for (int64_t i = 0; i < other.added_; ++i) sum_ *= 3;
    sum_ += other.sum_;
    added_ += other.added_;
    return absl::OkStatus();
  }
  int64_t sum() const { return sum_; }

 private:
  Script* const script_;
  const int64_t chunks_;
  int64_t sum_ = 0, added_ = 0;
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
    options.max_bytes = max_bytes_;
    options.kinds[kKind] = [this](const std::string& specification,
                                  const RequestContext&) {
      return absl::StatusOr<std::unique_ptr<JobWork>>(
          std::make_unique<Sum>(&script_, std::stoll(specification)));
    };
    jobs_ = Jobs::Open(std::move(options));
  }

  absl::StatusOr<JobInfo> TrySubmit(int64_t chunks, const JobOptions& options) {
    return jobs_->Submit({kKind, "a sum", std::to_string(chunks)}, options,
                         Sum(&script_, chunks));
  }
  std::string Submit(int64_t chunks, const JobOptions& options = {}) {
    const auto info = TrySubmit(chunks, options);
    EXPECT_TRUE(info.ok()) << info.status();
    return info.ok() ? info->id : "";
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
  int64_t max_bytes_ = int64_t{1} << 30;
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

TEST_F(JobsTest, AJobWaitsForMemoryAndLosesNothing) {
  script_.short_of_chunk = 2;
  script_.hold = 2;
  const std::string id = Submit(4);
  Await(id, [](const JobInfo& info) { return info.chunks_done == 2; });
  ASSERT_TRUE(jobs_->Cancel(id).ok());
  script_.hold = -1;
  script_.runs = 0;
  // No memory for a state is no damage to it: it is not begun anew.
  script_.short_of_state = 3;
  ASSERT_TRUE(jobs_->Resume(id).ok());
  const JobInfo info = AwaitEnd(id);
  EXPECT_EQ(info.state, JobState::kDone) << info.error;
  EXPECT_EQ(script_.runs, 2);
  EXPECT_EQ(Result(id), Expected(4));
}

TEST_F(JobsTest, AResultMakesRoomForAnother) {
  const std::string first = Submit(2), second = Submit(3);
  AwaitEnd(second);
  EXPECT_EQ(Result(first), Expected(2));
  script_.short_of_state = 1;
  EXPECT_EQ(Result(second), Expected(3));
  // The first one was dropped for it, and is read again.
  script_.short_of_state = 2;
  const auto none = jobs_->Result(first, kKind, {});
  EXPECT_TRUE(absl::IsResourceExhausted(none.status())) << none.status();
  EXPECT_TRUE(none.status().GetPayload("retry-delay-ms").has_value());
  EXPECT_THAT(none.status().message(), HasSubstr("accepted: 2 together"));
  EXPECT_EQ(Result(first), Expected(2));
}

TEST(JobMemoryTest, TellsWhatWillNeverFitFromWhatDoesNotNow) {
  auto memory = std::make_unique<JobMemory>(10);
  auto some = memory->Take(6);
  ASSERT_TRUE(some.ok());
  EXPECT_TRUE(memory->Take(4).ok());  // and given back at once
  const absl::Status now = memory->Take(5).status();
  EXPECT_TRUE(now.GetPayload(JobMemory::kPayload).has_value()) << now;
  const absl::Status never = memory->Take(11).status();
  EXPECT_TRUE(absl::IsResourceExhausted(never)) << never;
  EXPECT_FALSE(never.GetPayload("retry-delay-ms").has_value());
  some = JobMemory::Charge();
  auto all = memory->Take(10);
  EXPECT_TRUE(all.ok()) << all.status();
  memory.reset();  // charges outlive it
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

TEST_F(JobsTest, ADamagedRecordFailsItsJobAlone) {
  const std::string id = Submit(2), other = Submit(3);
  AwaitEnd(id);
  AwaitEnd(other);
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
    EXPECT_EQ(jobs_->List()->size(), 2u);
    const JobInfo info = *jobs_->Get(id);
    EXPECT_EQ(info.state, JobState::kFailed) << record;
    EXPECT_FALSE(info.resumable);
    EXPECT_THAT(info.error, HasSubstr(id)) << record;
    EXPECT_EQ(jobs_->Result(id, kKind, {}).status().code(),
              absl::StatusCode::kDataLoss);
    EXPECT_EQ(jobs_->Resume(id).status().code(),
              absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(Result(other), Expected(3));
    jobs_.reset();
  }
  Open();
  ASSERT_TRUE(jobs_->Delete(id).ok());
  Open();
  EXPECT_EQ(jobs_->List()->size(), 1u);
  EXPECT_EQ(AwaitEnd(Submit(2)).state, JobState::kDone);
}

TEST_F(JobsTest, ADamagedResultIsNotAnsweredInPart) {
  const std::string id = Submit(4);
  AwaitEnd(id);
  Open();
  ASSERT_EQ(States().size(), 2u);
  fs::resize_file(States().back(), 30);
  const absl::Status status = jobs_->Result(id, kKind, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("after 3"));
  const JobInfo info = *jobs_->Get(id);
  EXPECT_EQ(info.state, JobState::kFailed);
  EXPECT_EQ(info.chunks_saved, 3);
  ASSERT_TRUE(jobs_->Resume(id).ok());
  EXPECT_EQ(AwaitEnd(id).state, JobState::kDone);
  EXPECT_EQ(Result(id), Expected(4));
}

TEST_F(JobsTest, TheOnlyCheckpointDamagedIsTheBeginningAgain) {
  script_.hold = 1;
  const std::string id = Submit(3);
  Await(id, [](const JobInfo& info) { return info.chunks_saved == 1; });
  ASSERT_TRUE(jobs_->Cancel(id).ok());
  ASSERT_EQ(States().size(), 1u);
  fs::resize_file(States().front(), 30);
  script_.hold = -1;
  ASSERT_TRUE(jobs_->Resume(id).ok());
  EXPECT_EQ(AwaitEnd(id).state, JobState::kDone);
  EXPECT_EQ(Result(id), Expected(3));
}

TEST_F(JobsTest, WhatNoJobHasIsDropped) {
  const std::string id = Submit(1);
  AwaitEnd(id);
  jobs_.reset();
  const fs::path own = States().front();
  fs::copy_file(own, directory_ + "/job-00000000000001.1.state");
  {
    auto store = storage::DurableStore::Open(directory_);
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE(
        (*store)->Put("job_specification/job-00000000000001", "1").ok());
  }
  Open();
  EXPECT_THAT(States(), testing::ElementsAre(own));
  EXPECT_EQ(Result(id), Expected(1));
  jobs_.reset();
  auto store = storage::DurableStore::Open(directory_);
  ASSERT_TRUE(store.ok());
  EXPECT_THAT(*(*store)->Keys("job_specification/"),
              testing::ElementsAre("job_specification/" + id));
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

TEST_F(JobsTest, AJobThatEndsTheServerTwiceWaitsForSomebodyToResumeIt) {
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
  EXPECT_EQ(Result(id), Expected(1));
  script_.hold = -1;
  ASSERT_TRUE(jobs_->Resume(id).ok());
  EXPECT_EQ(AwaitEnd(id).state, JobState::kDone);
  EXPECT_EQ(Result(id), Expected(3));
}

TEST_F(JobsTest, AJobIsItsOwnersAndAdmins) {
  script_.hold = 0;
  JobOptions options;
  options.owner = "ann";
  const std::string id = Submit(2, options);
  const std::string nobodys = Submit(1);
  const Actor ann{"ann", false}, bob{"bob", false}, none{"", false};
  Open();  // it is recorded
  EXPECT_EQ(jobs_->Get(id)->owner, "ann");
  for (const Actor& other : {bob, none}) {
    const absl::Status refused = jobs_->Cancel(id, other).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(std::string(refused.message()), HasSubstr("\"ann\""));
    EXPECT_EQ(jobs_->Cancel(nobodys, other).status().code(),
              absl::StatusCode::kPermissionDenied);
  }
  EXPECT_FALSE(HasEnded(jobs_->Get(id)->state));
  ASSERT_TRUE(jobs_->Cancel(id, ann).ok());
  ASSERT_TRUE(jobs_->Cancel(nobodys).ok());
  EXPECT_EQ(jobs_->Resume(id, bob).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(jobs_->Delete(id, bob).code(), absl::StatusCode::kPermissionDenied);
  script_.hold = -1;
  ASSERT_TRUE(jobs_->Resume(id, ann).ok());
  EXPECT_EQ(AwaitEnd(id).state, JobState::kDone);
  ASSERT_TRUE(jobs_->Delete(id, ann).ok());
  EXPECT_EQ(jobs_->Delete(nobodys, ann).code(),
            absl::StatusCode::kPermissionDenied);
  ASSERT_TRUE(jobs_->Delete(nobodys, Actor{"root", true}).ok());
}

TEST_F(JobsTest, ASubmissionSentAgainIsOfTheSameOwner) {
  JobOptions options;
  options.request_id = "r";
  options.owner = "ann";
  const std::string id = Submit(1, options);
  EXPECT_EQ(Submit(1, options), id);
  options.owner = "bob";
  EXPECT_EQ(TrySubmit(1, options).status().code(),
            absl::StatusCode::kAlreadyExists);
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

TEST_F(JobsTest, ACancelOfAJobThatIsDoneSaysSo) {
  const std::string id = Submit(1);
  AwaitEnd(id);
  const absl::Status status = jobs_->Cancel(id).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is done"));
}

TEST_F(JobsTest, ANameIsOfOneJobAndARequestIdOfOneSubmission) {
  JobOptions options;
  options.name = "mine";
  options.request_id = "r1";
  const std::string id = Submit(2, options);
  EXPECT_EQ(Submit(2, options), id);  // sent again
  EXPECT_EQ(jobs_->List()->size(), 1u);
  const auto other = TrySubmit(3, options);
  EXPECT_EQ(other.status().code(), absl::StatusCode::kAlreadyExists);
  options.request_id = "r2";
  const absl::Status taken = TrySubmit(2, options).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(taken.message()), HasSubstr("\"mine\""));
  AwaitEnd(id);
  Open();
  EXPECT_EQ(jobs_->Get(id)->name, "mine");
  options.request_id = "r1";
  EXPECT_EQ(Submit(2, options), id);  // by the next process, too
  options.name = "a\nb";
  EXPECT_EQ(TrySubmit(2, options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(JobsTest, TellsWhatTheResultIsOf) {
  const std::string id = Submit(1);
  AwaitEnd(id);
  Open();
  const JobProvenance told = jobs_->Get(id)->provenance;
  EXPECT_EQ(told.model, "a model");
  EXPECT_EQ(told.dictionaries.at(0).first, "a dictionary");
  EXPECT_EQ(told.dictionaries.at(0).second, storage::Digest{7});
  EXPECT_EQ(told.dataset_digest, storage::Digest{9});
}

TEST_F(JobsTest, ADatasetIsInUseUntilTheJobHasEnded) {
  script_.hold = 0;
  const std::string id = Submit(1);
  EXPECT_TRUE(jobs_->Uses({9}));
  EXPECT_FALSE(jobs_->Uses({8}));
  script_.hold = -1;
  AwaitEnd(id);
  EXPECT_FALSE(jobs_->Uses({9}));
}

TEST_F(JobsTest, WithoutRoomForAStateAJobFailsAndMayBeResumed) {
  const std::string before = Submit(1);
  AwaitEnd(before);
  script_.hold = 1;
  const std::string id = Submit(3);
  Await(id, [](const JobInfo& info) { return info.chunks_saved == 1; });
  jobs_.reset();
  max_bytes_ = 1;
  script_.hold = -1;
  Open();
  JobInfo info = AwaitEnd(id);
  EXPECT_EQ(info.state, JobState::kFailed);
  EXPECT_TRUE(info.resumable);
  EXPECT_THAT(info.error, HasSubstr("RESOURCE_EXHAUSTED"));
  EXPECT_EQ(TrySubmit(1, {}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Result(before), Expected(1));  // nothing else suffers
  max_bytes_ = int64_t{1} << 30;
  Open();
  EXPECT_TRUE(jobs_->Get(id)->resumable);
  ASSERT_TRUE(jobs_->Resume(id).ok());
  info = AwaitEnd(id);
  EXPECT_EQ(info.state, JobState::kDone) << info.error;
  EXPECT_EQ(Result(id), Expected(3));
}

TEST_F(JobsTest, AJobThatHasEndedExpires) {
  JobOptions options;
  options.keep = absl::Milliseconds(1);
  script_.hold = 0;
  const std::string id = Submit(1, options);
  const std::string other = Submit(1);
  absl::SleepFor(absl::Milliseconds(5));
  EXPECT_TRUE(jobs_->Get(id).ok());  // it has not ended
  script_.hold = -1;
  AwaitEnd(other);
  absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(jobs_->Get(id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(States().size(), 1u);
  EXPECT_TRUE(jobs_->Get(other).ok());
}

class ShardsTest : public JobsTest {
 protected:
  // Runs shard `index` of `count` and gives what another server receives.
  ReceivedShard Run(int64_t chunks, int64_t index, int64_t count) {
    JobOptions options;
    options.shard = {index, count};
    const std::string id = Submit(chunks, options);
    EXPECT_EQ(AwaitEnd(id).state, JobState::kDone);
    auto exported = jobs_->Export(id);
    EXPECT_TRUE(exported.ok()) << exported.status();
    ReceivedShard shard{
        std::make_shared<const JobSpecification>(exported->specification),
        exported->shard, exported->tokens,
        absl::StrCat(directory_, "/taken-", taken_++)};
    std::ofstream(shard.path, std::ios::binary) << Bytes(*exported);
    return shard;
  }
  static std::string Bytes(const ExportedShard& shard) {
    std::string bytes(shard.bytes + 1, '\0');
    bytes.resize(std::fread(bytes.data(), 1, bytes.size(), shard.state.get()));
    EXPECT_EQ(static_cast<int64_t>(bytes.size()), shard.bytes);
    return bytes;
  }
  int64_t taken_ = 0;
  absl::Status MergeError(std::vector<ReceivedShard> shards) {
    return jobs_->Merge(std::move(shards), {}, {}).status();
  }
};

TEST_F(ShardsTest, MergedAreWhatOneJobIs) {
  for (int64_t count : {1, 2, 3, 7}) {
    std::vector<ReceivedShard> shards;
    int64_t chunks = 0;
    for (int64_t i = count - 1; i >= 0; --i) {
      shards.push_back(Run(7, i, count));
      chunks += jobs_->List()->back().chunks;
    }
    EXPECT_EQ(chunks, 7);
    const auto merged = jobs_->Merge(shards, {}, {});
    ASSERT_TRUE(merged.ok()) << merged.status();
    EXPECT_EQ(merged->state, JobState::kDone);
    EXPECT_EQ(merged->chunks, 7);
    EXPECT_EQ(merged->tokens, 70);
    EXPECT_EQ(merged->tokens_done, 70);
    EXPECT_EQ(merged->provenance.model, "a model");
    EXPECT_EQ(Result(merged->id), Expected(7));
    Open();
    EXPECT_EQ(Result(merged->id), Expected(7));
  }
}

TEST_F(ShardsTest, WhatIsReceivedCountsInTheQuota) {
  max_bytes_ = 1000;
  Open();
  const auto files = [this] {
    return std::distance(fs::directory_iterator(directory_), {});
  };
  const auto before = files();
  auto inbox = *jobs_->Receive();
  EXPECT_EQ(inbox->Append("x").code(), absl::StatusCode::kInvalidArgument);
  const auto text = std::make_shared<const JobSpecification>(
      JobSpecification{kKind, "", std::string(300, 's')});
  ASSERT_TRUE(inbox->Begin({text, {0, 2}, 0, ""}).ok());
  ASSERT_TRUE(inbox->Append(std::string(300, 'x')).ok());
  ASSERT_TRUE(inbox->Begin({text, {1, 2}, 0, ""}).ok());
  ASSERT_TRUE(inbox->Append(std::string(400, 'x')).ok());
  const absl::Status full = inbox->Append("x");
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("1000"));
  EXPECT_EQ(TrySubmit(1, {}).status().code(),
            absl::StatusCode::kResourceExhausted);
  const auto shards = inbox->Finish();
  ASSERT_TRUE(shards.ok());
  EXPECT_EQ(shards->at(0).specification, shards->at(1).specification);
  EXPECT_EQ(fs::file_size(shards->at(0).path), 300u);
  EXPECT_EQ(fs::file_size(shards->at(1).path), 400u);
  EXPECT_EQ(files(), before + 2);
  inbox = nullptr;
  EXPECT_EQ(files(), before);
  EXPECT_EQ(AwaitEnd(Submit(1)).state, JobState::kDone);
}

TEST_F(ShardsTest, FewAreReceivedAtATime) {
  std::vector<std::unique_ptr<ShardInbox>> inboxes;
  while (inboxes.size() < Jobs::kMaxMerges) {
    inboxes.push_back(*jobs_->Receive());
  }
  const absl::Status later = jobs_->Receive().status();
  EXPECT_EQ(later.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(later.GetPayload("retry-delay-ms").has_value());
  inboxes.pop_back();
  EXPECT_TRUE(jobs_->Receive().ok());
}

TEST_F(ShardsTest, ShardsOfAnotherJobEndTheCall) {
  auto inbox = *jobs_->Receive();
  const auto spec = [](const char* text) {
    return std::make_shared<const JobSpecification>(
        JobSpecification{kKind, "", text});
  };
  ASSERT_TRUE(inbox->Begin({spec("1"), {0, 2}, 0, ""}).ok());
  EXPECT_THAT(std::string(inbox->Begin({spec("2"), {1, 2}, 0, ""}).message()),
              HasSubstr("of another job than the first"));
}

TEST_F(ShardsTest, WhatIsDeletedIsFree) {
  max_bytes_ = 1000;
  Open();
  for (int i = 0; i < 30; ++i) {
    const std::string id = Submit(3);
    const JobInfo info = AwaitEnd(id);
    ASSERT_EQ(info.state, JobState::kDone) << info.error;
    ASSERT_TRUE(jobs_->Delete(id).ok());
    if (i % 10 == 0) Open();
  }
  const ReceivedShard whole = Run(4, 0, 1);
  for (int i = 0; i < 30; ++i) {
    const auto merged = jobs_->Merge({whole}, {}, {});
    ASSERT_TRUE(merged.ok()) << merged.status();
    ASSERT_TRUE(jobs_->Delete(merged->id).ok());
  }
}

TEST_F(ShardsTest, RefusesAShardWithOtherChunksThanItsOwn) {
  const ReceivedShard first = Run(4, 0, 2);
  ReceivedShard second = Run(4, 1, 2);
  // Of the same identity, as this work's has nothing to do with its chunks.
  const ReceivedShard longer = Run(8, 1, 2);
  second.path = longer.path;
  EXPECT_THAT(std::string(MergeError({first, second}).message()),
              HasSubstr("0 of 2 ends with chunk 2 of 6; accepted: with 3"));
}

TEST_F(ShardsTest, AShardGoesOnAfterACancel) {
  script_.hold = 5;
  JobOptions options;
  options.shard = {1, 2};
  const std::string id = Submit(7, options);  // chunks 3 to 6
  Await(id, [](const JobInfo& info) { return info.chunks_done == 2; });
  ASSERT_TRUE(jobs_->Cancel(id).ok());
  EXPECT_EQ(jobs_->Export(id).status().code(),
            absl::StatusCode::kFailedPrecondition);
  script_.hold = -1;
  ASSERT_TRUE(jobs_->Resume(id).ok());
  EXPECT_EQ(AwaitEnd(id).chunks_done, 4);
  EXPECT_EQ(Result(id), ((4 * 3 + 5) * 3 + 6) * 3 + 7);
}

TEST_F(ShardsTest, RefusesWhatIsNotTheWholeJob) {
  const ReceivedShard first = Run(4, 0, 2), second = Run(4, 1, 2);
  const ReceivedShard other = Run(5, 1, 2);
  EXPECT_THAT(std::string(MergeError({first}).message()), HasSubstr("1 of 2"));
  EXPECT_THAT(std::string(MergeError({second}).message()),
              HasSubstr("0 of 2 is missing"));
  EXPECT_THAT(std::string(MergeError({first, first}).message()),
              HasSubstr("comes twice"));
  EXPECT_THAT(std::string(MergeError({first, other}).message()),
              HasSubstr("shards of one job"));
  EXPECT_EQ(MergeError({}).code(), absl::StatusCode::kInvalidArgument);
  fs::resize_file(second.path, fs::file_size(second.path) - 1);
  EXPECT_THAT(std::string(MergeError({first, second}).message()),
              HasSubstr("1 of 2 is damaged"));
  script_.model = 2;
  EXPECT_EQ(MergeError({first, Run(4, 1, 2)}).code(),
            absl::StatusCode::kFailedPrecondition);
  JobOptions options;
  options.shard = {0, 5};
  EXPECT_EQ(TrySubmit(4, options).status().code(),
            absl::StatusCode::kInvalidArgument);
  options.shard = {2, 2};
  EXPECT_EQ(TrySubmit(4, options).status().code(),
            absl::StatusCode::kInvalidArgument);
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
