#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_MERGES_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_MERGES_H_

#include <cstddef>
#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"

namespace cupola::model::tokenizer {

// The merge rules of a BPE vocabulary. Immutable once filled; any thread may
// call Apply.
class Merges {
 public:
  // `left` and `right` side by side become `merged`; a lower rank goes first.
  // A rule for the same pair replaces the earlier one.
  void Add(int32_t left, int32_t right, uint32_t rank, int32_t merged);
  // Some rule can join a symbol that ends in the unmerged symbol `last` with
  // one that starts with `first`. Where two neighbours have no joint, nothing
  // is ever merged across them, and long inputs are cut there.
  // REQUIRES: called for all such pairs.
  void AddJoint(int32_t last, int32_t first);

  // Merges the `count` symbols at `ids` in place until no rule applies: always
  // the rule of the lowest rank, of several the leftmost. Returns how many are
  // left. O(n log n) for n symbols, at most 2^31 of them.
  size_t Apply(int32_t* ids, size_t count) const;

 private:
  struct Rule {
    uint32_t rank;
    int32_t merged;
  };

  const Rule* Find(int32_t left, int32_t right) const;
  // For a few symbols: looks for the best pair again after each merge.
  size_t ApplyToFew(int32_t* ids, size_t count) const;
  // For any number: a heap of candidates over a linked list of symbols.
  size_t ApplyToMany(int32_t* ids, size_t count) const;

  absl::flat_hash_map<uint64_t, Rule> rules_;
  absl::flat_hash_set<uint64_t> joints_;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_MERGES_H_
