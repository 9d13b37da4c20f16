#ifndef CUPOLA_SERVER_ENGINE_EXECUTOR_H_
#define CUPOLA_SERVER_ENGINE_EXECUTOR_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace cupola::engine {

// A few threads that run tasks in the order they came: for work that is short
// but must not run on a gRPC thread (tokenizing, hashing, disk reads), and,
// with one thread, for loading. Tasks may add tasks. Any thread may call.
class Executor {
 public:
  explicit Executor(int threads);
  ~Executor();  // as Join
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  void Run(std::function<void()> task);
  // Runs what is queued, and what that adds, and ends the threads. Tasks that
  // come later are dropped.
  void Join();

 private:
  void Loop();

  absl::Mutex mu_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_EXECUTOR_H_
