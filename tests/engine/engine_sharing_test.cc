// What requests share of a device: answers, passes and time. The queue is held
// while requests arrive, so that nothing here depends on timing.

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/engine.h"
#include "tests/files/tiny_model.h"

namespace cupola::engine {
namespace {

using ::testing::ElementsAre;

// Counts what the engine tells.
class Counts : public Observer {
 public:
  void OnBatch(absl::string_view, int64_t more_tokens, int64_t more_parts,
               double) override {
    ++batches;
    tokens += more_tokens;
    parts += more_parts;
  }
  void OnSharedFlight() override { ++shared; }
  std::atomic<int64_t> batches{0}, tokens{0}, parts{0}, shared{0};
};

class EngineSharing : public ::testing::Test {
 protected:
  // An engine without a cache on one model with two dictionaries.
  void Start(int64_t batch_tokens = 4096) {
    folder_ = std::filesystem::temp_directory_path() /
              ("cupola_sharing_" + std::to_string(getpid()));
    testing::TinyGpt2().Write(folder_ + "/tiny");
    testing::WriteTinySae(folder_ + "/a", "blocks.0.hook_resid_post", 32, 64,
                          2);
    testing::WriteTinySae(folder_ + "/b", "blocks.1.hook_resid_pre", 32, 96, 3);
    EngineOptions options;
    options.device = "cpu";
    options.self_check = false;
    options.batch_tokens = batch_tokens;
    ModelSpec tiny;
    tiny.name = "tiny";
    tiny.path = folder_ + "/tiny";
    options.catalog.models.push_back(tiny);
    for (const char* name : {"a", "b"}) {
      DictionarySpec dictionary;
      dictionary.name = name;
      dictionary.model = "tiny";
      dictionary.path = folder_ + "/" + name;
      options.catalog.dictionaries.push_back(dictionary);
    }
    auto engine = Engine::Create(options, &counts_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    while (!engine_->CatalogReady()) absl::SleepFor(absl::Milliseconds(1));
  }
  void TearDown() override {
    engine_ = nullptr;
    std::filesystem::remove_all(folder_);
  }

  static FeaturesRequest FeaturesOf(const std::string& text,
                                    const std::string& dictionary = "a",
                                    int copies = 1) {
    FeaturesRequest request;
    request.dictionary = dictionary;
    request.prompts.emplace();
    for (int i = 0; i < copies; ++i) {
      // Different prompts of one length: two letters tell 676.
      Prompt prompt;
      prompt.text = text + static_cast<char>('a' + i % 26) +
                    static_cast<char>('a' + i / 26);
      request.prompts->prompts.push_back(std::move(prompt));
    }
    return request;
  }

  // Asks while nothing runs, and returns when the queue knows of it.
  void AskHeld(FeaturesRequest request, RequestContext context,
               Engine::Done<FeaturesAnswer> done) {
    const int64_t before = engine_->QueueDepth().interactive + counts_.shared;
    engine_->GetFeatures(std::move(request), std::move(context),
                         std::move(done));
    while (engine_->QueueDepth().interactive + counts_.shared == before) {
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

  std::string folder_;
  Counts counts_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineSharing, TheSameQuestionInFlightIsComputedOnce) {
  Start();
  engine_->HoldForTesting(true);
  constexpr int kClients = 5;
  absl::BlockingCounter left(kClients);
  std::vector<std::string> values(kClients);
  for (int i = 0; i < kClients; ++i) {
    AskHeld(FeaturesOf("a prompt"), {},
            [&, i](absl::StatusOr<FeaturesAnswer> answer) {
              ASSERT_TRUE(answer.ok()) << answer.status();
              values[i] = answer->features.values.bytes;
              left.DecrementCount();
            });
  }
  EXPECT_EQ(engine_->QueueDepth().interactive, 1);
  EXPECT_EQ(counts_.shared, kClients - 1);
  engine_->HoldForTesting(false);
  left.Wait();
  engine_->Drain(absl::Now() + absl::Seconds(10));
  EXPECT_EQ(counts_.parts, 1);
  EXPECT_FALSE(values[0].empty());
  EXPECT_THAT(values, ::testing::Each(values[0]));
}

TEST_F(EngineSharing, APromptTwiceInARequestToo) {
  Start();
  FeaturesRequest request = FeaturesOf("a prompt");
  request.prompts->prompts.push_back(request.prompts->prompts[0]);
  absl::Notification done;
  engine_->GetFeatures(request, {}, [&](absl::StatusOr<FeaturesAnswer> answer) {
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->prompt.shape[0] % 2, 0);
    const std::string& values = answer->features.values.bytes;
    EXPECT_EQ(values.substr(0, values.size() / 2),
              values.substr(values.size() / 2));
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_EQ(counts_.shared, 1);
}

TEST_F(EngineSharing, WhoLeavesLeavesTheOthersTheirAnswer) {
  Start();
  engine_->HoldForTesting(true);
  RequestContext first, second, hurried;
  hurried.deadline = absl::Now() + absl::Milliseconds(200);
  absl::Notification gone, late, answered;
  AskHeld(FeaturesOf("x"), first, [&](absl::StatusOr<FeaturesAnswer> answer) {
    EXPECT_TRUE(absl::IsCancelled(answer.status())) << answer.status();
    gone.Notify();
  });
  AskHeld(FeaturesOf("x"), second, [&](absl::StatusOr<FeaturesAnswer> answer) {
    EXPECT_TRUE(answer.ok()) << answer.status();
    answered.Notify();
  });
  AskHeld(FeaturesOf("x"), hurried, [&](absl::StatusOr<FeaturesAnswer> answer) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(answer.status())) << answer.status();
    late.Notify();
  });
  first.cancelled->store(true);
  // Both hear of it while nothing runs.
  gone.WaitForNotification();
  late.WaitForNotification();
  engine_->HoldForTesting(false);
  answered.WaitForNotification();
}

TEST_F(EngineSharing, DictionariesShareThePassOfAPrompt) {
  Start();
  engine_->HoldForTesting(true);
  absl::BlockingCounter left(2);
  std::vector<int64_t> rows;
  int64_t alone = 0;
  for (const char* dictionary : {"a", "b"}) {
    AskHeld(FeaturesOf("the same prompt", dictionary), {},
            [&](absl::StatusOr<FeaturesAnswer> answer) {
              ASSERT_TRUE(answer.ok()) << answer.status();
              alone = answer->prompt.shape[0];
              left.DecrementCount();
            });
  }
  engine_->HoldForTesting(false);
  left.Wait();
  engine_->Drain(absl::Now() + absl::Seconds(10));
  EXPECT_EQ(counts_.batches, 1);
  EXPECT_EQ(counts_.parts, 2);
  EXPECT_EQ(counts_.tokens, alone);
}

TEST_F(EngineSharing, AnswersFromASharedPassAreThoseFromAPassOfTheirOwn) {
  Start();
  const auto ask = [&](const char* dictionary, bool together) {
    absl::Notification done;
    std::string values;
    if (together) engine_->HoldForTesting(true);
    const auto take = [&](absl::StatusOr<FeaturesAnswer> answer) {
      ASSERT_TRUE(answer.ok()) << answer.status();
      values = answer->features.indices.bytes + answer->features.values.bytes;
      done.Notify();
    };
    absl::Notification other;
    if (together) {
      AskHeld(FeaturesOf("something", dictionary[0] == 'a' ? "b" : "a"), {},
              [&](absl::StatusOr<FeaturesAnswer>) { other.Notify(); });
      AskHeld(FeaturesOf("something", dictionary), {}, take);
      engine_->HoldForTesting(false);
      other.WaitForNotification();
    } else {
      engine_->GetFeatures(FeaturesOf("something", dictionary), {}, take);
    }
    done.WaitForNotification();
    return values;
  };
  for (const char* dictionary : {"a", "b"}) {
    EXPECT_EQ(ask(dictionary, true), ask(dictionary, false)) << dictionary;
  }
}

TEST_F(EngineSharing, ANotebookDoesNotWaitForTheEndOfALongRequest) {
  Start(/*batch_tokens=*/64);
  engine_->HoldForTesting(true);
  RequestContext lab, one;
  lab.client = "lab";
  one.client = "one";
  absl::Notification all, mine;
  std::atomic<int64_t> batches_for_mine{0};
  AskHeld(FeaturesOf("a long list of prompts", "a", 600), lab,
          [&](absl::StatusOr<FeaturesAnswer> answer) {
            EXPECT_TRUE(answer.ok()) << answer.status();
            all.Notify();
          });
  AskHeld(FeaturesOf("a short question"), one,
          [&](absl::StatusOr<FeaturesAnswer> answer) {
            EXPECT_TRUE(answer.ok()) << answer.status();
            batches_for_mine = counts_.batches.load();
            mine.Notify();
          });
  engine_->HoldForTesting(false);
  mine.WaitForNotification();
  all.WaitForNotification();
  engine_->Drain(absl::Now() + absl::Seconds(10));
  EXPECT_GT(counts_.batches, 180);
  // Read when the callback has its turn, which may be some batches late: half
  // of a few hundred leave room for that.
  EXPECT_LT(batches_for_mine, counts_.batches / 2);
}

}  // namespace
}  // namespace cupola::engine
