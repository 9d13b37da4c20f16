#ifndef CUPOLA_SERVER_MODEL_TORCH_STATUS_H_
#define CUPOLA_SERVER_MODEL_TORCH_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace cupola::model {

// Turns the exception being handled into a Status: RESOURCE_EXHAUSTED where the
// device or the host had no memory, INTERNAL otherwise. `doing` begins the
// message. REQUIRES: called inside a catch block.
absl::Status StatusOfTorchException(absl::string_view doing);

// Runs `body`, which returns a Status or a StatusOr, and turns whatever
// LibTorch throws into a Status. Every public function of this server that
// calls LibTorch runs its body in one of these; inside, exceptions may fly
// freely.
template <typename Body>
auto CatchTorch(absl::string_view doing, Body&& body) -> decltype(body()) {
  try {
    return std::forward<Body>(body)();
  } catch (...) {
    return StatusOfTorchException(doing);
  }
}

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_TORCH_STATUS_H_
