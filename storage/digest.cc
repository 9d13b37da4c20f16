#include "storage/digest.h"

#include <openssl/evp.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/strings/escaping.h"

namespace cupola::storage {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the formats are little-endian and written without swapping");

void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "cupola: Hasher: %s\n", what);
  std::abort();
}

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

}  // namespace

struct Hasher::Context {
  std::unique_ptr<EVP_MD_CTX, FreeContext> sha256;
  uint64_t missing = 0;  // bytes still to come for the field in pieces
};

std::string ToHex(const Digest& digest) {
  return absl::BytesToHexString(absl::string_view(
      reinterpret_cast<const char*>(digest.data()), digest.size()));
}

Hasher::Hasher(absl::string_view domain) : context_(new Context) {
  context_->sha256.reset(EVP_MD_CTX_new());
  Require(
      context_->sha256 != nullptr &&
          EVP_DigestInit_ex(context_->sha256.get(), EVP_sha256(), nullptr) == 1,
      "SHA-256 is not available");
  BeginField('D', domain.size());
  Update(domain.data(), domain.size());
}

Hasher::~Hasher() = default;

void Hasher::Update(const void* data, size_t size) {
  Require(EVP_DigestUpdate(context_->sha256.get(), data, size) == 1,
          "SHA-256 failed");
}

void Hasher::BeginField(char tag) {
  Require(context_ != nullptr, "a field after Finish");
  Require(context_->missing == 0, "a field in pieces is incomplete");
  Update(&tag, 1);
}

void Hasher::BeginField(char tag, uint64_t length) {
  BeginField(tag);
  Update(&length, sizeof(length));
}

Hasher& Hasher::AddBytes(absl::string_view bytes) {
  BeginField('B', bytes.size());
  Update(bytes.data(), bytes.size());
  return *this;
}

Hasher& Hasher::AddInt(int64_t value) {
  BeginField('I');
  Update(&value, sizeof(value));
  return *this;
}

Hasher& Hasher::AddDouble(double value) {
  if (value == 0.0) value = 0.0;  // equal numbers, equal keys: -0.0 becomes 0.0
  BeginField('F');
  Update(&value, sizeof(value));
  return *this;
}

Hasher& Hasher::AddDigest(const Digest& digest) {
  BeginField('H');
  Update(digest.data(), digest.size());
  return *this;
}

Hasher& Hasher::AddInts(const int32_t* data, size_t count) {
  BeginField('i', count);
  Update(data, count * sizeof(*data));
  return *this;
}

Hasher& Hasher::AddInts(const int64_t* data, size_t count) {
  BeginField('l', count);
  Update(data, count * sizeof(*data));
  return *this;
}

Hasher& Hasher::BeginBytes(uint64_t total) {
  BeginField('B', total);
  context_->missing = total;
  return *this;
}

Hasher& Hasher::AddPiece(const void* data, size_t size) {
  Require(context_ != nullptr && size <= context_->missing,
          "pieces exceed the field's total");
  Update(data, size);
  context_->missing -= size;
  return *this;
}

Digest Hasher::Finish() {
  Require(context_ != nullptr, "Finish called twice");
  Require(context_->missing == 0, "a field in pieces is incomplete");
  Digest digest;
  unsigned int size = 0;
  Require(
      EVP_DigestFinal_ex(context_->sha256.get(), digest.data(), &size) == 1 &&
          size == digest.size(),
      "SHA-256 failed");
  context_.reset();
  return digest;
}

}  // namespace cupola::storage
