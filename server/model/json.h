#ifndef CUPOLA_SERVER_MODEL_JSON_H_
#define CUPOLA_SERVER_MODEL_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace cupola::model {

using Json = nlohmann::json;

// Files from outside are hostile until read: both functions refuse more than
// `max_bytes`, more than 64 levels of nesting, and text that is not JSON, with an
// INVALID_ARGUMENT that names `what` and the byte where it stopped.
absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view what);

// NOT_FOUND: no such file; INVALID_ARGUMENT as above or not a regular file.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes = 64 << 20);
absl::StatusOr<Json> ReadJsonFile(const std::string& path,
                                  int64_t max_bytes = 64 << 20);

// Typed member access: `fallback` where the key is absent or null;
// INVALID_ARGUMENT naming the key and its type where it is something else.
absl::StatusOr<int64_t> IntOr(const Json& json, const char* key,
                              int64_t fallback);
absl::StatusOr<double> DoubleOr(const Json& json, const char* key,
                                double fallback);
absl::StatusOr<bool> BoolOr(const Json& json, const char* key, bool fallback);
absl::StatusOr<std::string> StringOr(const Json& json, const char* key,
                                     absl::string_view fallback);
// As above, but the key must be there.
absl::StatusOr<int64_t> RequiredInt(const Json& json, const char* key);
absl::StatusOr<std::string> RequiredString(const Json& json, const char* key);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_JSON_H_
