#ifndef CUPOLA_SERVER_SERVICE_CATALOG_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_CATALOG_CONVERSION_H_

#include "absl/status/statusor.h"
#include "cupola/v1/admin.pb.h"
#include "cupola/v1/catalog.pb.h"
#include "cupola/v1/catalog_config.pb.h"
#include "server/engine/catalog_types.h"
#include "storage/result_cache.h"

// The catalog between its plain structs and Protobuf: entries of the catalog
// file to specs, statuses to descriptions.

namespace cupola::service {

// Paths are taken as they stand. INVALID_ARGUMENT names the field, its value
// and what is accepted: an empty name or path, a name with other characters
// than letters, digits and ._-/ or longer than 128, a type that does not
// compute.
absl::StatusOr<engine::ModelSpec> FromProto(const v1::ModelEntry& entry);
absl::StatusOr<engine::DictionarySpec> FromProto(
    const v1::DictionaryEntry& entry);

// What the files have not told yet (an entry that was never opened) stays
// unset. Hook points are listed when `with_hook_points`.
v1::ModelInfo ToProto(const engine::ModelStatus& status, bool with_hook_points);
v1::DictionaryInfo ToProto(const engine::DictionaryStatus& status);

// `disabled_reason` is empty when the cache works.
v1::CacheStatistics ToProto(const storage::ResultCacheStatistics& statistics,
                            const std::string& disabled_reason);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_CATALOG_CONVERSION_H_
