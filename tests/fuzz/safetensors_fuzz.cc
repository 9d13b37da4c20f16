// A safetensors file, its header and what the header says of the rest.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "server/model/safetensors.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const cupola::testing::MemoryFile file(
      absl::string_view(reinterpret_cast<const char*>(data), size));
  const auto set = cupola::model::SafetensorsSet::OpenFile(file.path());
  if (!set.ok()) return 0;
  for (const auto& [name, extent] : (*set)->tensors()) {
    if (extent.offset > size || extent.bytes > size - extent.offset) {
      std::abort();
    }
    if (!(*set)->Read(name, at::kFloat).ok()) std::abort();
  }
  if (!(*set)->ContentDigest().ok()) std::abort();
  return 0;
}
