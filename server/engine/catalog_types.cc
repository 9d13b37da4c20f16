#include "server/engine/catalog_types.h"

namespace cupola::engine {

const char* StateName(State state) {
  switch (state) {
    case State::kRegistered:
      return "registered";
    case State::kLoading:
      return "loading";
    case State::kResident:
      return "resident";
    case State::kEvicted:
      return "evicted";
    case State::kFailed:
      return "failed";
  }
  return "unknown";
}

}  // namespace cupola::engine
