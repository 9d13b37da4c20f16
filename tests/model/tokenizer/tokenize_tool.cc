// tokenize_tool FOLDER: a tokenizer behind a pipe, for the parity test.
//
// Standard input holds requests: one byte that says what, a length (u32,
// little-endian) and as many bytes. Standard output gets an answer for each:
// one byte, '+' or, for an error, '-'; a length; the bytes, or the message.
//
//   what  bytes         answer
//   E     text          Encode: its ids (i32, little-endian)
//   T     text          the seconds (f64) that Encode took
//   D     ids (i32)     Decode: a text
//   P     an id (i32)   Piece: bytes
//   B     none          bos_id and declared_bos_id (i32, -1: none),
//                       vocabulary_size
//
// Exits with 2, and the reason on standard error, where FOLDER does not load.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/tokenizer/tokenizer.h"

namespace {

using cupola::model::Tokenizer;

template <typename T>
std::string ToBytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(T));
}

std::vector<int32_t> ToIds(const std::string& bytes) {
  std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(int32_t));
  return ids;
}

absl::StatusOr<std::string> Answer(const Tokenizer& tokenizer, char what,
                                   const std::string& bytes) {
  switch (what) {
    case 'E': {
      const auto ids = tokenizer.Encode(bytes);
      if (!ids.ok()) return ids.status();
      return ToBytes(*ids);
    }
    case 'T': {
      const auto start = std::chrono::steady_clock::now();
      const auto ids = tokenizer.Encode(bytes);
      const std::chrono::duration<double> seconds =
          std::chrono::steady_clock::now() - start;
      if (!ids.ok()) return ids.status();
      return ToBytes<double>({seconds.count()});
    }
    case 'D':
      return tokenizer.Decode(ToIds(bytes));
    case 'P': {
      const std::vector<int32_t> ids = ToIds(bytes);
      if (ids.size() != 1) return absl::InvalidArgumentError("one id");
      return tokenizer.Piece(ids[0]);
    }
    case 'B':
      return ToBytes<int32_t>({tokenizer.bos_id().value_or(-1),
                               tokenizer.declared_bos_id().value_or(-1),
                               tokenizer.vocabulary_size()});
    default:
      return absl::InvalidArgumentError("no such request");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenize_tool FOLDER\n");
    return 2;
  }
  const auto tokenizer = Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 2;
  }
  for (int what = std::getchar(); what != EOF; what = std::getchar()) {
    uint32_t size = 0;
    if (std::fread(&size, sizeof(size), 1, stdin) != 1) return 1;
    std::string bytes(size, '\0');
    if (std::fread(bytes.data(), 1, size, stdin) != size) return 1;
    const auto answer = Answer(**tokenizer, static_cast<char>(what), bytes);
    const std::string text = answer.ok() ? *answer : answer.status().ToString();
    size = static_cast<uint32_t>(text.size());
    std::putchar(answer.ok() ? '+' : '-');
    std::fwrite(&size, sizeof(size), 1, stdout);
    std::fwrite(text.data(), 1, size, stdout);
    std::fflush(stdout);
  }
  return 0;
}
