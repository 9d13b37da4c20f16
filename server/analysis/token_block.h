#ifndef CUPOLA_SERVER_ANALYSIS_TOKEN_BLOCK_H_
#define CUPOLA_SERVER_ANALYSIS_TOKEN_BLOCK_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/analysis/sparse_view.h"
#include "storage/state_file.h"

namespace cupola::analysis {

struct LatentEntry {
  int32_t latent = 0;
  float value = 0;
};

// The active latents of a block of tokens, kept until there are enough of them
// for a product over tokens to be worth a pass over its result. Entries that
// are not above 0 are left out; within a token latents ascend.
class TokenBlock {
 public:
  explicit TokenBlock(int64_t latents) : latents_(latents) {}

  // rows.columns == latents.
  void Append(const SparseView& rows);
  void Append(const TokenBlock& other);
  // Keeps the memory for the next tokens, unless it was very much.
  void Clear();

  int64_t latents() const { return latents_; }
  int64_t tokens() const { return static_cast<int64_t>(begins_.size()) - 1; }
  int64_t entries() const { return static_cast<int64_t>(entries_.size()); }
  const LatentEntry* Begin(int64_t token) const {
    return entries_.data() + begins_[token];
  }
  const LatentEntry* End(int64_t token) const {
    return entries_.data() + begins_[token + 1];
  }
  const LatentEntry& Entry(int64_t index) const { return entries_[index]; }

  // Where each latent stands: places begins[l] to begins[l + 1] - 1 are those
  // of latent l, in token order. On as many threads as LibTorch has.
  struct Place {
    int32_t token = 0;
    int32_t entry = 0;
  };
  struct ByLatent {
    std::vector<int64_t> begins;  // [latents + 1]
    std::vector<Place> places;    // [entries]
  };
  ByLatent Turn() const;

  // Body: i64 tokens, i64 begins[tokens + 1], then for each entry i32 latent
  // and f32 value.
  absl::Status Save(storage::StateWriter* state) const;
  absl::Status Restore(storage::StateReader* state);

 private:
  const int64_t latents_;
  std::vector<int64_t> begins_{0};  // [tokens + 1]
  std::vector<LatentEntry> entries_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_TOKEN_BLOCK_H_
