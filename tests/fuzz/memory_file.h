#ifndef CUPOLA_TESTS_FUZZ_MEMORY_FILE_H_
#define CUPOLA_TESTS_FUZZ_MEMORY_FILE_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "absl/strings/string_view.h"

namespace cupola::testing {

// A file without a disk, for readers that want a path.
class MemoryFile {
 public:
  explicit MemoryFile(absl::string_view content)
      : descriptor_(::memfd_create("input", MFD_CLOEXEC)) {
    if (descriptor_ < 0 ||
        ::write(descriptor_, content.data(), content.size()) !=
            static_cast<ssize_t>(content.size())) {
      std::abort();
    }
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const {
    return "/proc/self/fd/" + std::to_string(descriptor_);
  }

 private:
  const int descriptor_;
};

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_FUZZ_MEMORY_FILE_H_
