#ifndef CUPOLA_SERVER_MODEL_JSON_H_
#define CUPOLA_SERVER_MODEL_JSON_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace cupola::model {

using Json = nlohmann::json;

// Files from outside are hostile until read: text that is not JSON, or nests
// deeper than 64 levels, is an INVALID_ARGUMENT that names `what` and the byte
// where the reader stopped.
absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view what);

// NOT_FOUND: no such file. INVALID_ARGUMENT: not a regular file, more than
// `max_bytes`, or it cannot be read; for ReadJsonFile also what ParseJson says.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes = 64 << 20);
absl::StatusOr<Json> ReadJsonFile(const std::string& path,
                                  int64_t max_bytes = 64 << 20);

// Typed member access: `fallback` where the key is absent or null;
// INVALID_ARGUMENT naming the key and its type where it is something else, or
// where `json` is not an object. An integer written as 2.0 is not an integer;
// DoubleOr takes integers too.
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
