#include "tests/model/safetensors_writer.h"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/model/json.h"

namespace cupola::model {

void WriteFile(const std::string& path, absl::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.flush();
  if (!file.good()) {
    std::cerr << "cannot write " << path << "\n";
    std::abort();
  }
}

std::string SafetensorsFile(absl::string_view header, absl::string_view data) {
  std::string file;
  for (int shift = 0; shift < 64; shift += 8) {
    file.push_back(static_cast<char>(uint64_t{header.size()} >> shift));
  }
  return absl::StrCat(file, header, data);
}

std::string SafetensorsFile(const std::map<std::string, at::Tensor>& tensors) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor dense = tensor.contiguous();
    const char* dtype = dense.scalar_type() == at::kFloat  ? "F32"
                        : dense.scalar_type() == at::kHalf ? "F16"
                                                           : "BF16";
    const size_t begin = data.size();
    data.append(static_cast<const char*>(dense.const_data_ptr()),
                dense.nbytes());
    header[name] = {{"dtype", dtype},
                    {"shape", dense.sizes().vec()},
                    {"data_offsets", {begin, data.size()}}};
  }
  return SafetensorsFile(header.dump(), data);
}

std::string TestFolder() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  std::string name = absl::StrCat(info->test_suite_name(), "_", info->name());
  for (char& c : name) {
    if (c == '/') c = '_';
  }
  const std::string folder = absl::StrCat(testing::TempDir(), "/", name);
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

}  // namespace cupola::model
