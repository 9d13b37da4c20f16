#include "tests/storage/storage_test_util.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <system_error>

#include "gtest/gtest.h"

namespace cupola::storage {

namespace fs = std::filesystem;

TempDirectory::TempDirectory() {
  // Databases sync often, which costs nothing in memory.
  const bool memory = ::access("/dev/shm", W_OK) == 0;
  path_ = memory ? "/dev/shm" : testing::TempDir();
  path_ += "/cupola_storage_XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) std::abort();
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string TempDirectory::operator/(const std::string& name) const {
  return path_ + "/" + name;
}

CacheKey NumberedKey(uint64_t n) {
  CacheKey key;
  key.scope = n % 4;
  key.operation = 7;
  key.digest = Hasher("test key").AddInt(static_cast<int64_t>(n)).Finish();
  return key;
}

std::shared_ptr<const Record> NumberedRecord(uint64_t n, size_t bytes) {
  std::mt19937_64 random(n);
  Array noise;
  noise.dtype = DType::kBFloat16;
  noise.shape = {static_cast<int64_t>(bytes / 2)};
  noise.bytes.resize(bytes / 2 * 2);
  for (size_t i = 0; i < noise.bytes.size(); i += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(noise.bytes.data() + i, &word,
                std::min(sizeof(word), noise.bytes.size() - i));
  }
  Array number;
  number.dtype = DType::kInt64;
  number.bytes.resize(sizeof(n));
  std::memcpy(number.bytes.data(), &n, sizeof(n));
  return std::make_shared<const Record>(
      Record{std::move(noise), std::move(number)});
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << bytes;
}

std::vector<std::string> ListFiles(const std::string& directory) {
  std::vector<std::string> files;
  std::error_code ignored;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(directory, ignored)) {
    if (entry.is_regular_file(ignored)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

int64_t BytesIn(const std::string& directory) {
  int64_t bytes = 0;
  for (const std::string& file : ListFiles(directory)) {
    std::error_code gone;  // files come and go while the database works
    const auto size = fs::file_size(file, gone);
    if (!gone) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace cupola::storage
