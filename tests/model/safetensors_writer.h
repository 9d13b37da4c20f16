#ifndef CUPOLA_TESTS_MODEL_SAFETENSORS_WRITER_H_
#define CUPOLA_TESTS_MODEL_SAFETENSORS_WRITER_H_

#include <map>
#include <string>

#include "ATen/ATen.h"
#include "tests/files/safetensors_file.h"

namespace cupola::model {

using ::cupola::testing::SafetensorsFile;
using ::cupola::testing::WriteFile;

// A valid file with float32, float16 or bfloat16 tensors.
std::string SafetensorsFile(const std::map<std::string, at::Tensor>& tensors);

// A fresh folder for the running test.
std::string TestFolder();

}  // namespace cupola::model

#endif  // CUPOLA_TESTS_MODEL_SAFETENSORS_WRITER_H_
