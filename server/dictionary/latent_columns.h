#ifndef CUPOLA_SERVER_DICTIONARY_LATENT_COLUMNS_H_
#define CUPOLA_SERVER_DICTIONARY_LATENT_COLUMNS_H_

#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "ATen/ATen.h"
#include "server/model/linear.h"

namespace cupola::dictionary {

// Single columns of an encoder's weight. A packed weight gives them up only as
// a whole matrix, which costs as much as encoding a short prompt; so columns
// that were asked for are kept, up to a fixed share of the weight, and a client
// that follows a few latents pays once. Any thread may call.
class LatentColumns {
 public:
  explicit LatentColumns(const model::Linear* encoder);
  // How many columns of an encoder with so many are ever kept.
  static int64_t Capacity(int64_t columns);

  // Whether so few latents are worth a path of their own.
  bool Serves(size_t latents) const {
    return static_cast<int64_t>(latents) <= capacity_;
  }
  // [latents, in], in the weight's dtype. REQUIRES: Serves(latents.size()).
  at::Tensor Gather(const std::vector<int32_t>& latents) const;

  int64_t Bytes() const;

 private:
  const model::Linear* const encoder_;  // not owned
  const int64_t capacity_;              // columns
  mutable std::mutex mutex_;
  mutable std::unordered_map<int32_t, at::Tensor> columns_;  // [in] each
};

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_LATENT_COLUMNS_H_
