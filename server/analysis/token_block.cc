#include "server/analysis/token_block.h"

#include <algorithm>
#include <cmath>

#include "ATen/Parallel.h"
#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

// Of tokens and of entries, which Turn counts in 32 bits.
constexpr int64_t kMaxRestored = int64_t{1} << 30;
// Tokens and entries whose memory a block keeps when it is cleared.
constexpr size_t kKept = size_t{1} << 22;

}  // namespace

void TokenBlock::Append(const SparseView& rows) {
  for (int64_t t = 0; t < rows.rows; ++t) {
    const size_t begin = entries_.size();
    bool ascending = true;
    for (int64_t i = rows.indptr[t]; i < rows.indptr[t + 1]; ++i) {
      if (!(rows.values[i] > 0)) continue;
      ascending = ascending && (entries_.size() == begin ||
                                entries_.back().latent < rows.indices[i]);
      entries_.push_back({rows.indices[i], rows.values[i]});
    }
    if (!ascending) {
      std::sort(entries_.begin() + begin, entries_.end(),
                [](const LatentEntry& a, const LatentEntry& b) {
                  return a.latent < b.latent;
                });
    }
    begins_.push_back(static_cast<int64_t>(entries_.size()));
  }
}

void TokenBlock::Append(const TokenBlock& other) {
  const int64_t before = entries();
  entries_.insert(entries_.end(), other.entries_.begin(), other.entries_.end());
  for (int64_t t = 0; t < other.tokens(); ++t) {
    begins_.push_back(before + other.begins_[t + 1]);
  }
}

void TokenBlock::Clear() {
  if (begins_.capacity() > kKept) begins_ = {};
  begins_.assign(1, 0);
  entries_.clear();
  if (entries_.capacity() > kKept) entries_.shrink_to_fit();
}

TokenBlock::ByLatent TokenBlock::Turn() const {
  ByLatent turned;
  turned.begins.resize(latents_ + 1);
  for (const LatentEntry& entry : entries_) ++turned.begins[entry.latent + 1];
  for (int64_t latent = 0; latent < latents_; ++latent) {
    turned.begins[latent + 1] += turned.begins[latent];
  }
  turned.places.resize(entries_.size());
  // Each thread has latents of its own, and reads all entries.
  const int64_t threads = at::get_num_threads();
  at::parallel_for(0, threads, 1, [&](int64_t from, int64_t to) {
    const int64_t begin = latents_ * from / threads;
    const int64_t end = latents_ * to / threads;
    std::vector<int64_t> next(turned.begins.begin() + begin,
                              turned.begins.begin() + end);
    for (int64_t token = 0; token < tokens(); ++token) {
      for (int64_t i = begins_[token]; i < begins_[token + 1]; ++i) {
        const int64_t latent = entries_[i].latent;
        if (latent < begin || latent >= end) continue;
        turned.places[next[latent - begin]++] = {static_cast<int32_t>(token),
                                                 static_cast<int32_t>(i)};
      }
    }
  });
  return turned;
}

absl::Status TokenBlock::Save(storage::StateWriter* state) const {
  RETURN_IF_ERROR(state->AppendValue(tokens()));
  RETURN_IF_ERROR(SaveVector(begins_, state));
  return SaveVector(entries_, state);
}

absl::Status TokenBlock::Restore(storage::StateReader* state) {
  const auto damaged = [] {
    return absl::DataLossError("the state's block of tokens is damaged");
  };
  int64_t tokens = 0;
  RETURN_IF_ERROR(state->ReadValue(&tokens));
  const auto fits = [state](int64_t count, uint64_t bytes) {
    return count >= 0 && count <= kMaxRestored &&
           static_cast<uint64_t>(count) < state->left() / bytes;
  };
  if (!fits(tokens, sizeof(int64_t))) return damaged();
  begins_.assign(tokens + 1, 0);
  RETURN_IF_ERROR(RestoreVector(state, &begins_));
  if (begins_.front() != 0 || !std::is_sorted(begins_.begin(), begins_.end()) ||
      begins_.back() > kMaxRestored ||
      static_cast<uint64_t>(begins_.back()) >
          state->left() / sizeof(LatentEntry)) {
    return damaged();
  }
  entries_.assign(begins_.back(), {});
  RETURN_IF_ERROR(RestoreVector(state, &entries_));
  for (int64_t t = 0; t < tokens; ++t) {
    int64_t before = -1;
    for (int64_t i = begins_[t]; i < begins_[t + 1]; ++i) {
      const LatentEntry& entry = entries_[i];
      if (entry.latent <= before || entry.latent >= latents_ ||
          !std::isfinite(entry.value) || !(entry.value > 0)) {
        return damaged();
      }
      before = entry.latent;
    }
  }
  return absl::OkStatus();
}

}  // namespace cupola::analysis
