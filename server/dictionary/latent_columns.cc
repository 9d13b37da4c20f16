#include "server/dictionary/latent_columns.h"

#include <algorithm>

namespace cupola::dictionary {
namespace {

constexpr int64_t kShareOfWeight = 32;

}  // namespace

LatentColumns::LatentColumns(const model::Linear* encoder)
    : encoder_(encoder), capacity_(Capacity(encoder->out_features())) {}

int64_t LatentColumns::Capacity(int64_t columns) {
  return columns / kShareOfWeight;
}

at::Tensor LatentColumns::Gather(const std::vector<int32_t>& latents) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<int64_t> missing;
  for (int32_t latent : latents) {
    if (columns_.count(latent) == 0) missing.push_back(latent);
  }
  if (!missing.empty() &&
      columns_.size() + missing.size() > static_cast<size_t>(capacity_)) {
    columns_.clear();
    missing.assign(latents.begin(), latents.end());
  }
  if (!missing.empty()) {
    const at::Tensor weight = encoder_->Weight();  // [in, out]
    for (int64_t latent : missing) {
      columns_[static_cast<int32_t>(latent)] =
          weight.select(1, latent).contiguous();
    }
  }
  std::vector<at::Tensor> rows;
  rows.reserve(latents.size());
  for (int32_t latent : latents) rows.push_back(columns_.at(latent));
  return at::stack(rows);
}

int64_t LatentColumns::Bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t bytes = 0;
  for (const auto& [latent, column] : columns_) {
    bytes += static_cast<int64_t>(column.nbytes());
  }
  return bytes;
}

}  // namespace cupola::dictionary
