#ifndef CUPOLA_STORAGE_DIGEST_H_
#define CUPOLA_STORAGE_DIGEST_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace cupola::storage {

// The identity of content: a SHA-256 value.
using Digest = std::array<uint8_t, 32>;

// 64 lower-case hexadecimal digits.
std::string ToHex(const Digest& digest);

// Hashes a sequence of typed fields into a Digest. The encoding is canonical
// and length-prefixed, so that no two different sequences of fields feed the
// same bytes: each field is a one-byte type tag, then its length where it
// varies (u64, little-endian), then its bytes. Integers are 8 bytes, doubles
// their IEEE bits with -0.0 as 0.0.
//
//   Digest key = Hasher("features/1").AddDigest(model).AddInts(ids,
//   n).Finish();
//
//   field      tag   then
//   domain     'D'   u64 length, bytes (always the first field)
//   bytes      'B'   u64 length, bytes
//   int        'I'   8 bytes, two's complement, little-endian
//   double     'F'   8 bytes, IEEE 754, little-endian
//   digest     'H'   32 bytes
//   int32s     'i'   u64 count, 4 bytes each, little-endian
//   int64s     'l'   u64 count, 8 bytes each, little-endian
//
// Not thread-safe. Finish ends the hasher's life. A broken REQUIRES ends the
// process: a wrong identity would serve wrong answers for ever.
class Hasher {
 public:
  // `domain` separates uses: an operation's name and version.
  explicit Hasher(absl::string_view domain);
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  Hasher& AddBytes(absl::string_view bytes);
  Hasher& AddInt(int64_t value);
  Hasher& AddDouble(double value);
  Hasher& AddDigest(const Digest& digest);
  // `data` points to `count` integers. Lists of different widths differ, even
  // where their values are equal.
  Hasher& AddInts(const int32_t* data, size_t count);
  Hasher& AddInts(const int64_t* data, size_t count);
  // A field whose bytes come in pieces, for files larger than memory; the same
  // as AddBytes of their concatenation.
  // REQUIRES: the pieces add up to `total` before the next field or Finish.
  Hasher& BeginBytes(uint64_t total);
  Hasher& AddPiece(const void* data, size_t size);

  // REQUIRES: not called before.
  Digest Finish();

 private:
  struct Context;
  void Update(const void* data, size_t size);
  void BeginField(char tag);
  void BeginField(char tag, uint64_t length);

  std::unique_ptr<Context> context_;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_DIGEST_H_
