#ifndef CUPOLA_SERVER_FILES_SMALL_FILE_H_
#define CUPOLA_SERVER_FILES_SMALL_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace cupola::files {

// Tells whether a file has changed: differs between two states of it, also when
// it is missing or `path` is empty.
std::string FileStamp(const std::string& path);

// The bytes of a small file. INVALID_ARGUMENT: it cannot be read, or holds more
// than 1 MiB.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);

}  // namespace cupola::files

#endif  // CUPOLA_SERVER_FILES_SMALL_FILE_H_
