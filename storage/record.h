#ifndef CUPOLA_STORAGE_RECORD_H_
#define CUPOLA_STORAGE_RECORD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "storage/array.h"
#include "storage/digest.h"

namespace cupola::storage {

// One cached answer: some arrays, in an order that its operation fixes.
using Record = std::vector<Array>;

// Where an answer lives: everything that can change it is in `digest`; `scope`
// (the first 8 bytes of the model's digest) and `operation` lead the stored
// key, so that a model's answers can be dropped together.
struct CacheKey {
  uint64_t scope = 0;
  uint8_t operation = 0;
  Digest digest{};

  friend bool operator==(const CacheKey&, const CacheKey&) = default;
};

// The scope of a model: the first 8 bytes of its digest, big-endian, so that
// stored keys begin with the digest's own bytes.
uint64_t ScopeOf(const Digest& model_digest);

// The stored key, 43 bytes. Keys of one scope are neighbours. A change of
// either format gets a new version, whose keys never meet the old ones.
//
//   offset  size  field
//        0     1  'r'
//        1     1  format version, kFormatVersion
//        2     8  scope, big-endian
//       10     1  operation
//       11    32  digest
inline constexpr uint8_t kFormatVersion = 1;
inline constexpr size_t kStoredKeyBytes = 43;
std::string EncodeKey(const CacheKey& key);

// The keys of one scope are those k with begin <= k < end.
struct KeyRange {
  std::string begin, end;
};
KeyRange ScopeRange(uint64_t scope);

// The stored record. Integers are little-endian, except the checksum, which is
// in xxHash's canonical (big-endian) form.
//
//   offset  size  field
//        0     4  magic, "CUPR"
//        4     1  format version, kFormatVersion
//        5     1  zero
//        6     2  number of arrays, n
//        8     8  time of writing, microseconds since 1970 (signed)
//       16    32  the key's digest (echo)
//       48     8  payload length, p
//       56    16  XXH3-128 of: the stored key (43 bytes), bytes 0..56 of the
//                 record, bytes 72..end of the record
//       72        n array headers, each
//                   1  dtype (storage::DType)
//                   1  rank, r
//                 8*r  shape, each dimension a signed 64-bit integer
//                 then the payload: the arrays' bytes in the same order,
//                 without gaps. The record ends where the payload ends.
inline constexpr size_t kRecordHeaderBytes = 72;

struct StoredRecord {
  Record record;
  absl::Time written;
};

// INVALID_ARGUMENT, naming the array, where an array breaks its invariant or
// has more than 255 dimensions, or there are more than 65535 arrays.
absl::StatusOr<std::string> EncodeRecord(const CacheKey& key,
                                         const Record& record, absl::Time now);

// The inverse. `bytes` may be anything, also hostile: no read outside it, and
// memory only in proportion to its size. DATA_LOSS with one of these reasons:
// "truncated", "bad magic", "format version", "key echo", "unknown dtype",
// "shape overflow", "payload length", "checksum".
absl::StatusOr<StoredRecord> DecodeRecord(const CacheKey& key,
                                          absl::string_view bytes);

// Host memory that a record takes, its bookkeeping included.
int64_t MemoryBytes(const Record& record);

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_RECORD_H_
