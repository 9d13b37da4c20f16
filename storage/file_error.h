#ifndef CUPOLA_STORAGE_FILE_ERROR_H_
#define CUPOLA_STORAGE_FILE_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

// What the writers of files share.

namespace cupola::storage {

// Of a call that has set errno: RESOURCE_EXHAUSTED where the disk, a quota or
// the largest file is full, else INTERNAL; "cannot `doing` `path`: why".
absl::Status FileError(absl::string_view doing, const std::string& path);

// Makes what was created, renamed or removed in `path`'s directory last.
void SyncDirectory(const std::string& path);

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_FILE_ERROR_H_
