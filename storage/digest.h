#ifndef CUPOLA_STORAGE_DIGEST_H_
#define CUPOLA_STORAGE_DIGEST_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace cupola::storage {

// The identity of content: a SHA-256 value.
using Digest = std::array<uint8_t, 32>;

std::string ToHex(const Digest& digest);

// Hashes a sequence of typed fields into a Digest. The encoding is canonical
// and length-prefixed, so that no two different sequences of fields feed the
// same bytes: each field is a one-byte type tag, then its length where it
// varies (u64, little-endian), then its bytes. Integers are 8 bytes, doubles
// their IEEE bits with -0.0 as 0.0.
//
//   Digest key = Hasher("features/1").Add(model_digest).Add(ids).Finish();
//
// Not thread-safe. Finish ends the hasher's life.
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
  // `data` points to `count` integers.
  Hasher& AddInts(const int32_t* data, size_t count);
  Hasher& AddInts(const int64_t* data, size_t count);
  // A field whose bytes come in pieces, for files larger than memory. `total`
  // must equal the pieces' sum.
  Hasher& BeginBytes(uint64_t total);
  Hasher& AddPiece(const void* data, size_t size);

  Digest Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_DIGEST_H_
