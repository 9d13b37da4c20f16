#ifndef CUPOLA_CLIENT_CPP_METADATA_VALUE_H_
#define CUPOLA_CLIENT_CPP_METADATA_VALUE_H_

#include <algorithm>

#include "absl/strings/string_view.h"

namespace cupola {

// The longest value that is sent: servers bound the sum of all metadata.
inline constexpr size_t kMaxMetadataValue = 1024;

// Whether gRPC can send a text as a metadata value: it is printable ASCII (gRPC
// ends the process over other text), not empty and not too long.
inline bool FitsMetadata(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxMetadataValue &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return c >= 0x20 && c <= 0x7e; });
}

}  // namespace cupola

#endif  // CUPOLA_CLIENT_CPP_METADATA_VALUE_H_
