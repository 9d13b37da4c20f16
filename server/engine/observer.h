#ifndef CUPOLA_SERVER_ENGINE_OBSERVER_H_
#define CUPOLA_SERVER_ENGINE_OBSERVER_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace cupola::engine {

// What the engine tells about itself while it works: the service layer turns it
// into metrics. Called from any thread; implementations are quick and do not
// block. The defaults ignore everything.
class Observer {
 public:
  virtual ~Observer() = default;
  // A device batch ran: real tokens (no padding) and parts (prompts).
  virtual void OnBatch(absl::string_view /*device*/, int64_t /*tokens*/,
                       int64_t /*parts*/, double /*seconds*/) {}
  // A part whose record another request was already having computed.
  virtual void OnSharedFlight() {}
  virtual void OnLoad(absl::string_view /*name*/, bool /*ok*/,
                      double /*seconds*/) {}
  virtual void OnResidentBytes(absl::string_view /*name*/,
                               absl::string_view /*kind*/, int64_t /*bytes*/) {}
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_OBSERVER_H_
