#ifndef CUPOLA_SERVER_SERVICE_CATALOG_FILE_H_
#define CUPOLA_SERVER_SERVICE_CATALOG_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/catalog_types.h"

namespace cupola::service {

// Reads a catalog: a text-format cupola.v1.CatalogConfig. Relative paths start
// at the file's own folder. An entry's folder need not exist: the entry then
// fails to load, and the others serve.
//
// NOT_FOUND: no such file. INVALID_ARGUMENT: it is not a catalog ("FILE:LINE:
// COLUMN: what"; unknown fields are refused), an entry is not acceptable, or,
// when `model_root` is not empty, an entry's path, with symbolic links
// followed, is outside that folder.
absl::StatusOr<engine::CatalogSpec> ReadCatalogFile(
    const std::string& path, const std::string& model_root);

// The same for a text; `path` names it in errors and is where relative paths
// start.
absl::StatusOr<engine::CatalogSpec> ParseCatalog(absl::string_view text,
                                                 const std::string& path,
                                                 const std::string& model_root);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_CATALOG_FILE_H_
