#include "tests/model/safetensors_writer.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace cupola::model {

std::string SafetensorsFile(const std::map<std::string, at::Tensor>& tensors) {
  std::map<std::string, ::cupola::testing::StoredTensor> stored;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor dense = tensor.contiguous();
    const char* dtype = dense.scalar_type() == at::kFloat  ? "F32"
                        : dense.scalar_type() == at::kHalf ? "F16"
                                                           : "BF16";
    stored[name] = {
        dtype, dense.sizes().vec(),
        std::string(static_cast<const char*>(dense.const_data_ptr()),
                    dense.nbytes())};
  }
  return SafetensorsFile(stored);
}

std::string TestFolder() {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  std::string name = absl::StrCat(info->test_suite_name(), "_", info->name());
  for (char& c : name) {
    if (c == '/') c = '_';
  }
  const std::string folder = absl::StrCat(::testing::TempDir(), "/", name);
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

}  // namespace cupola::model
