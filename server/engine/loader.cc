#include "server/engine/loader.h"

namespace cupola::engine {

absl::Status Loader::Stopped() {
  return absl::UnavailableError("the server is shutting down");
}

void Loader::Stop() {
  {
    absl::MutexLock lock(mu_);
    stopping_ = true;
  }
  waiting_.EndAll(Stopped());
  executor_.Join();
}

}  // namespace cupola::engine
