#include "server/engine/join.h"

#include <memory>
#include <utility>

#include "absl/synchronization/mutex.h"

namespace cupola::engine {

std::function<void(absl::Status)> Join(int count,
                                       std::function<void(absl::Status)> done) {
  struct Progress {
    absl::Mutex mu;
    int left;
    absl::Status status;
  };
  auto progress = std::make_shared<Progress>();
  progress->left = count;
  return [progress, done = std::move(done)](absl::Status status) {
    absl::Status result;
    {
      absl::MutexLock lock(&progress->mu);
      progress->status.Update(status);
      if (--progress->left > 0) return;
      result = progress->status;
    }
    done(result);
  };
}

}  // namespace cupola::engine
