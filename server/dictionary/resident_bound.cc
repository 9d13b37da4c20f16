#include "server/dictionary/resident_bound.h"

#include "server/dictionary/latent_columns.h"
#include "server/model/resident_bound.h"

namespace cupola::dictionary {

int64_t KeptColumnBytes(const Manifest& m) {
  if (m.architecture == Architecture::kMatchingPursuit) return 0;
  return static_cast<int64_t>(c10::elementSize(m.dtype)) * m.d_in *
         LatentColumns::Capacity(m.d_sae);
}

int64_t DictionaryBytesBound(const Manifest& m, at::Device device) {
  const int64_t width = static_cast<int64_t>(c10::elementSize(m.dtype));
  int64_t bytes = width * m.d_sae * m.d_out + KeptColumnBytes(m);  // W_dec
  if (m.architecture != Architecture::kMatchingPursuit) {
    bytes += model::LinearBytesBound(m.d_in, m.d_sae, /*has_bias=*/true,
                                     m.dtype, device);
  }
  if (m.skip) {
    bytes += model::LinearBytesBound(m.d_in, m.d_out, /*has_bias=*/false,
                                     at::kFloat, device);
  }
  // b_dec, and at most three float32 values per latent.
  return bytes + int64_t{sizeof(float)} * (m.d_out + 3 * m.d_sae);
}

}  // namespace cupola::dictionary
