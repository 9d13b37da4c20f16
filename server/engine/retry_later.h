#ifndef CUPOLA_SERVER_ENGINE_RETRY_LATER_H_
#define CUPOLA_SERVER_ENGINE_RETRY_LATER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace cupola::engine {

// RESOURCE_EXHAUSTED for now: the payload "retry-delay-ms" is read by the
// transport, which tells the client when to come back.
inline absl::Status RetryLater(absl::string_view why, double seconds) {
  absl::Status status = absl::ResourceExhaustedError(why);
  status.SetPayload(
      "retry-delay-ms",
      absl::Cord(absl::StrCat(static_cast<int64_t>(1000 * seconds))));
  return status;
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_RETRY_LATER_H_
