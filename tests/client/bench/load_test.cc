#include "client/bench/load.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "client/bench/point.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::bench {
namespace {

using ::testing::Ge;
using ::testing::Le;

// A server of one thread, which answers in turn, `service` each.
class FakeServer {
 public:
  explicit FakeServer(absl::Duration service, Outcome outcome = {})
      : service_(service), outcome_(outcome), thread_([this] { Serve(); }) {}
  ~FakeServer() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  Ask ask() {
    return [this](int64_t index, std::function<void(Outcome)> done) {
      std::lock_guard<std::mutex> lock(mutex_);
      indices_.insert(index);
      waiting_.push_back(std::move(done));
      most_ = std::max(most_, waiting_.size());
      changed_.notify_all();
    };
  }
  std::set<int64_t> indices() {
    std::lock_guard<std::mutex> lock(mutex_);
    return indices_;
  }
  size_t most() {
    std::lock_guard<std::mutex> lock(mutex_);
    return most_;
  }
  void Hold(bool held) {
    std::lock_guard<std::mutex> lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }

 private:
  void Serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock,
                    [&] { return ended_ || (!waiting_.empty() && !held_); });
      if (waiting_.empty() || held_) return;
      lock.unlock();
      absl::SleepFor(service_);
      lock.lock();
      // It is waiting until it is answered.
      const auto done = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      done(outcome_);
      lock.lock();
    }
  }

  const absl::Duration service_;
  const Outcome outcome_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false, held_ = false;
  size_t most_ = 0;
  std::set<int64_t> indices_;
  std::deque<std::function<void(Outcome)>> waiting_;
  std::thread thread_;
};

TEST(ClosedLoadTest, KeepsItsClientsBusy) {
  FakeServer server(absl::Milliseconds(2));
  const Ask ask = server.ask();
  Recorder recorder;
  ClosedLoad load(3, 100, ask, &recorder);
  load.RunUntil(absl::Now() + absl::Milliseconds(150));
  EXPECT_EQ(load.Stop(absl::Seconds(10)), 0);
  const Window window = recorder.Cut();
  const auto asked = static_cast<int64_t>(server.indices().size());
  EXPECT_THAT(asked, Ge(4));
  EXPECT_EQ(server.most(), 3u);
  EXPECT_EQ(*server.indices().begin(), 100);
  EXPECT_EQ(load.next_index(), 100 + asked);
  EXPECT_EQ(static_cast<int64_t>(window.latencies.size()), asked);
  EXPECT_EQ(window.codes.at("OK"), asked);
}

TEST(ClosedLoadTest, PausesAsLongAsTheServerAsks) {
  Outcome refusal;
  refusal.code = absl::StatusCode::kResourceExhausted;
  refusal.retry_delay = absl::Hours(1);
  FakeServer server(absl::ZeroDuration(), refusal);
  const Ask ask = server.ask();
  Recorder recorder;
  ClosedLoad load(5, 0, ask, &recorder);
  load.RunUntil(absl::Now() + absl::Milliseconds(100));
  EXPECT_EQ(load.Stop(absl::Seconds(10)), 0);
  const Window window = recorder.Cut();
  EXPECT_EQ(window.codes.at("RESOURCE_EXHAUSTED"), 5);
  EXPECT_EQ(window.refusals_without_delay, 0);
  EXPECT_TRUE(window.latencies.empty());
}

TEST(ClosedLoadTest, CountsWhatDoesNotEnd) {
  FakeServer server(absl::ZeroDuration());
  server.Hold(true);
  const Ask ask = server.ask();
  Recorder recorder;
  ClosedLoad load(4, 0, ask, &recorder);
  load.RunUntil(absl::Now() + absl::Milliseconds(20));
  EXPECT_EQ(load.Stop(absl::Milliseconds(20)), 4);
  server.Hold(false);
  EXPECT_EQ(load.Stop(absl::Seconds(10)), 0);
}

// A server that answers 50 a second is asked 500 a second: a latency that
// counted from when a call was sent would stay at 20 ms (one at a time).
TEST(OpenLoadTest, LatencyCountsFromTheIntendedStart) {
  FakeServer server(absl::Milliseconds(20));
  const Ask ask = server.ask();
  Recorder recorder;
  OpenLoad load(Arrivals(ArrivalProcess::kFixed, 500, 1), 1, 0, ask, &recorder);
  load.RunUntil(absl::Now() + absl::Milliseconds(300));
  EXPECT_EQ(load.Stop(absl::Seconds(10)), 0);
  const Window window = recorder.Cut();
  EXPECT_EQ(server.most(), 1u);
  ASSERT_THAT(window.latencies.size(), Ge(2u));
  // The n-th was to start at 2n ms and ended after 20n ms at the earliest.
  for (size_t n = 1; n <= window.latencies.size(); ++n) {
    EXPECT_GE(window.latencies[n - 1], 0.018 * static_cast<double>(n));
  }
  const auto asked = static_cast<int64_t>(server.indices().size());
  // 149 arrivals lie before the end.
  EXPECT_EQ(load.CountBacklog(), 149 - asked);
}

TEST(OpenLoadTest, DoesNotWaitForAnswers) {
  FakeServer server(absl::ZeroDuration());
  server.Hold(true);
  const Ask ask = server.ask();
  Recorder recorder;
  OpenLoad load(Arrivals(ArrivalProcess::kFixed, 1000, 1), 1000, 0, ask,
                &recorder);
  // Goes on where it was, over two windows.
  const absl::Time begin = absl::Now();
  load.RunUntil(begin + absl::Milliseconds(50));
  load.RunUntil(begin + absl::Milliseconds(100));
  const auto asked = static_cast<int64_t>(server.indices().size());
  EXPECT_THAT(asked, Ge(2));
  EXPECT_THAT(asked, Le(100));
  server.Hold(false);
  EXPECT_EQ(load.Stop(absl::Seconds(10)), 0);
  EXPECT_EQ(static_cast<int64_t>(recorder.Cut().latencies.size()), asked);
}

TEST(WindowTest, SumsUp) {
  Outcome answer;
  answer.from_cache = true;
  answer.bytes = 10;
  answer.queue_seconds = 0.5;
  Outcome refusal;
  refusal.code = absl::StatusCode::kResourceExhausted;
  Window one, two;
  one.Add(answer, 0.1);
  one.Add(refusal, 9);
  two.Add(answer, 0.2);
  one.Merge(two);
  EXPECT_THAT(one.latencies, ::testing::ElementsAre(0.1, 0.2));
  EXPECT_EQ(one.codes.at("OK"), 2);
  EXPECT_EQ(one.codes.at("RESOURCE_EXHAUSTED"), 1);
  EXPECT_EQ(one.refusals_without_delay, 1);
  EXPECT_EQ(one.hits, 2);
  EXPECT_EQ(one.bytes, 20);
  EXPECT_EQ(one.queue_seconds, 1.0);
}

// Answers by a script: so many in each window.
class ScriptedLoad final : public Load {
 public:
  ScriptedLoad(std::vector<int> answers, const Ask& ask, Recorder* recorder)
      : Load(0, ask, recorder),
        answers_(std::move(answers)),
        recorder_(recorder) {}
  void RunUntil(absl::Time end) override {
    for (int i = 0; i < answers_[window_]; ++i) recorder_->Add({}, 0.25);
    ++window_;
    absl::SleepFor(end - absl::Now());
  }
  size_t window_ = 0;

 private:
  const std::vector<int> answers_;
  Recorder* const recorder_;
};

TEST(PointTest, EndsUnstableAfterItsWindows) {
  const Ask ask;
  Recorder recorder;
  ScriptedLoad load({10, 1000, 10, 1000, 10, 1000}, ask, &recorder);
  const Point point = RunPoint({absl::Milliseconds(5), 5}, &load, &recorder);
  EXPECT_FALSE(point.stable);
  EXPECT_EQ(point.windows, 5);
  // The last three: 10, 1000, 10.
  EXPECT_EQ(point.latency.count, 1020);
  EXPECT_EQ(point.counts.codes.at("OK"), 1020);
  EXPECT_EQ(point.latency.p50, 0.25);
  EXPECT_DOUBLE_EQ(point.throughput, 1020 / point.seconds);
}

TEST(PointTest, WithoutAnAnswer) {
  const Ask ask;
  Recorder recorder;
  ScriptedLoad load({0, 0}, ask, &recorder);
  const Point point = RunPoint({absl::Milliseconds(1), 2}, &load, &recorder);
  EXPECT_FALSE(point.stable);
  EXPECT_EQ(point.throughput, 0);
  EXPECT_EQ(point.latency.count, 0);
}

}  // namespace
}  // namespace cupola::bench
