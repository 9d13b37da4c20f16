#ifndef CUPOLA_TESTS_MODEL_SAFETENSORS_WRITER_H_
#define CUPOLA_TESTS_MODEL_SAFETENSORS_WRITER_H_

#include <map>
#include <string>

#include "ATen/ATen.h"
#include "absl/strings/string_view.h"

namespace cupola::model {

// Writes `bytes` to a file, replacing it; aborts the test program on failure.
void WriteFile(const std::string& path, absl::string_view bytes);

// A file of the safetensors format: header length, header, data.
std::string SafetensorsFile(absl::string_view header, absl::string_view data);

// A valid file with float32, float16 or bfloat16 tensors.
std::string SafetensorsFile(const std::map<std::string, at::Tensor>& tensors);

// A fresh folder for the running test.
std::string TestFolder();

}  // namespace cupola::model

#endif  // CUPOLA_TESTS_MODEL_SAFETENSORS_WRITER_H_
