#ifndef CUPOLA_SERVER_DICTIONARY_RESIDENT_BOUND_H_
#define CUPOLA_SERVER_DICTIONARY_RESIDENT_BOUND_H_

#include <cstdint>

#include "ATen/ATen.h"
#include "server/dictionary/manifest.h"

namespace cupola::dictionary {

// An upper bound of what one Dictionary (of a pair: one half) ever holds on
// `device`, from its shapes alone, with the columns below.
int64_t DictionaryBytesBound(const Manifest& manifest, at::Device device);

// What a loaded one may add to its resident_bytes() while it is used: the
// columns kept for requests of few latents.
int64_t KeptColumnBytes(const Manifest& manifest);

}  // namespace cupola::dictionary

#endif  // CUPOLA_SERVER_DICTIONARY_RESIDENT_BOUND_H_
