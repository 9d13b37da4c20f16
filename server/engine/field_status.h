#ifndef CUPOLA_SERVER_ENGINE_FIELD_STATUS_H_
#define CUPOLA_SERVER_ENGINE_FIELD_STATUS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace cupola::engine {

// The status with `field` in front of its message.
inline absl::Status InField(const std::string& field,
                            const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(field, ": ", status.message()));
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_FIELD_STATUS_H_
