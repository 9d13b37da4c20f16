#include "tests/files/safetensors_file.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace cupola::testing {
namespace {

using Json = nlohmann::json;

constexpr size_t kLengthBytes = 8;

Json Entry(const std::string& dtype, const std::vector<int64_t>& shape,
           int64_t begin, int64_t bytes) {
  return {{"dtype", dtype},
          {"shape", shape},
          {"data_offsets", {begin, begin + bytes}}};
}

}  // namespace

std::string SafetensorsFile(absl::string_view header, absl::string_view data) {
  std::string length;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length.push_back(static_cast<char>(uint64_t{header.size()} >> (8 * i)));
  }
  return absl::StrCat(length, header, data);
}

std::string SafetensorsFile(
    const std::map<std::string, StoredTensor>& tensors) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] =
        Entry(tensor.dtype, tensor.shape, data.size(), tensor.bytes.size());
    data += tensor.bytes;
  }
  return SafetensorsFile(header.dump(), data);
}

void AddTensorOfZeros(const std::string& path, int64_t bytes) {
  const std::string file = ReadFile(path);
  size_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= size_t{static_cast<uint8_t>(file[i])} << (8 * i);
  }
  Json header = Json::parse(file.substr(kLengthBytes, length));
  const std::string data = file.substr(kLengthBytes + length);
  header["zeros"] = Entry("F32", {bytes / 4}, data.size(), bytes);
  WriteFile(path, SafetensorsFile(header.dump(), data));
  std::filesystem::resize_file(path, std::filesystem::file_size(path) + bytes);
}

std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void WriteFile(const std::string& path, absl::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.flush();
  if (!file.good()) {
    std::cerr << "cannot write " << path << "\n";
    std::abort();
  }
}

}  // namespace cupola::testing
