#ifndef CUPOLA_TESTS_STORAGE_STORAGE_TEST_UTIL_H_
#define CUPOLA_TESTS_STORAGE_STORAGE_TEST_UTIL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "storage/record.h"

namespace cupola::storage {

// A fresh directory, on a file system in memory where there is one, gone with
// the object.
class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  const std::string& path() const { return path_; }
  // A path below it.
  std::string operator/(const std::string& name) const;

 private:
  std::string path_;
};

// The n-th of a family of different keys; scope n % 4.
CacheKey NumberedKey(uint64_t n);

// A record that only NumberedKey(n) may have: two arrays, one of `bytes`
// pseudo-random bytes that depend on n (incompressible), one that says n.
std::shared_ptr<const Record> NumberedRecord(uint64_t n, size_t bytes = 1000);

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& bytes);
// The regular files of a directory, sorted by name, with their paths.
std::vector<std::string> ListFiles(const std::string& directory);
// The sum of their sizes.
int64_t BytesIn(const std::string& directory);

}  // namespace cupola::storage

#endif  // CUPOLA_TESTS_STORAGE_STORAGE_TEST_UTIL_H_
