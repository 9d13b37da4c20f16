// Records of the result cache, as a damaged or a hostile disk may hold them.

#include <xxhash.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "storage/record.h"

namespace {

using cupola::storage::CacheKey;

// Makes the bytes pass for a record of `key` that is whole, so that what lies
// behind the checksum is read.
std::string Repaired(const CacheKey& key, absl::string_view data) {
  std::string bytes(data);
  bytes.resize(std::max(bytes.size(), cupola::storage::kRecordHeaderBytes));
  std::memcpy(bytes.data(), "CUPR", 4);
  bytes[4] = static_cast<char>(cupola::storage::kFormatVersion);
  bytes[5] = 0;
  std::memcpy(bytes.data() + 16, key.digest.data(), key.digest.size());
  const std::string summed =
      absl::StrCat(cupola::storage::EncodeKey(key), bytes.substr(0, 56),
                   bytes.substr(cupola::storage::kRecordHeaderBytes));
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical,
                           XXH3_128bits(summed.data(), summed.size()));
  std::memcpy(bytes.data() + 56, &canonical, sizeof(canonical));
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const CacheKey key{7, 2, {1, 2, 3}};
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  cupola::storage::DecodeRecord(key, bytes).IgnoreError();
  const auto decoded = cupola::storage::DecodeRecord(key, Repaired(key, bytes));
  if (!decoded.ok()) return 0;
  // What can be read can be written, and is read again as it was.
  const auto encoded =
      cupola::storage::EncodeRecord(key, decoded->record, decoded->written);
  if (!encoded.ok()) std::abort();
  const auto again = cupola::storage::DecodeRecord(key, *encoded);
  if (!again.ok() || again->record.size() != decoded->record.size()) {
    std::abort();
  }
  for (size_t i = 0; i < again->record.size(); ++i) {
    if (again->record[i].shape != decoded->record[i].shape) std::abort();
  }
  return 0;
}
