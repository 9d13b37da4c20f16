#ifndef CUPOLA_SERVER_ENGINE_JOIN_H_
#define CUPOLA_SERVER_ENGINE_JOIN_H_

#include <functional>

#include "absl/status/status.h"

namespace cupola::engine {

// Calls `done` once `count` parts have reported, with the first error. The
// parts may report from any thread; the last one calls `done`.
std::function<void(absl::Status)> Join(int count,
                                       std::function<void(absl::Status)> done);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOIN_H_
