#ifndef CUPOLA_SERVER_ENGINE_FILE_STAMP_H_
#define CUPOLA_SERVER_ENGINE_FILE_STAMP_H_

#include <string>

#include "absl/status/status.h"
#include "server/engine/catalog_types.h"

namespace cupola::engine {

// Name, size, time of the last change and inode of every file in a folder that
// a model or a dictionary may be made of (.safetensors, .json), in one line:
// another one where a file has been replaced or written. Empty where there is
// no such folder.
std::string FileStamp(const std::string& folder);

// FAILED_PRECONDITION where the folder's stamp is another one: what was read of
// its files before is not what is there now.
absl::Status CheckStamp(const std::string& folder, const std::string& stamp);

// Stamps every entry of a catalog with its folder's files.
void StampFiles(CatalogSpec* catalog);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_FILE_STAMP_H_
