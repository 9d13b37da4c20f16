#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_LITERAL_MATCHER_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_LITERAL_MATCHER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace cupola::model::tokenizer {

// Finds many literal strings in a text at once: the leftmost that starts, and
// of those that start there the longest. Immutable once filled; any thread may
// call Find. One look takes as many steps as the longest literal has bytes.
class LiteralMatcher {
 public:
  struct Found {
    size_t begin;
    size_t end;
    int32_t value;
  };

  // Does nothing where the literal is there already, or empty.
  void Add(absl::string_view literal, int32_t value);
  bool empty() const { return node_count_ == 1; }

  // The first match that starts at `from` or behind.
  std::optional<Found> Find(absl::string_view text, size_t from) const;

 private:
  // A trie: (node, byte) -> node, and what ends in a node. Node 0 is the root.
  static uint64_t Edge(uint32_t node, unsigned char byte) {
    return uint64_t{node} << 8 | byte;
  }

  uint32_t node_count_ = 1;
  std::array<bool, 256> starts_{};  // bytes that some literal starts with
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  absl::flat_hash_map<uint32_t, int32_t> values_;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_LITERAL_MATCHER_H_
