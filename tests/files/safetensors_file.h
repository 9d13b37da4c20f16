#ifndef CUPOLA_TESTS_FILES_SAFETENSORS_FILE_H_
#define CUPOLA_TESTS_FILES_SAFETENSORS_FILE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace cupola::testing {

// A tensor as a file holds it: dtype "F32", "F16" or "BF16", row-major bytes.
struct StoredTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// A file of the safetensors format: header length, header, data.
std::string SafetensorsFile(absl::string_view header, absl::string_view data);
// A valid one, with these tensors in the order of their names.
std::string SafetensorsFile(const std::map<std::string, StoredTensor>& tensors);

// Adds a tensor of float32 zeros to the file at `path`, as a hole that takes no
// disk: it must be read all the same. REQUIRES: a multiple of 4.
void AddTensorOfZeros(const std::string& path, int64_t bytes);

std::string ReadFile(const std::string& path);
// Writes `bytes` to a file, replacing it; aborts the test program on failure.
void WriteFile(const std::string& path, absl::string_view bytes);

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_FILES_SAFETENSORS_FILE_H_
