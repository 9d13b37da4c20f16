#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_NORMALIZER_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_NORMALIZER_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/json.h"

namespace cupola::model::tokenizer {

// A text on its way to the pre-tokenizer.
struct NormalizedText {
  std::string text;  // valid UTF-8
  // How many bytes at the front of `text` come from the first character of the
  // whole input: Metaspace's "first" asks. 0 in a text that starts later.
  size_t head = 0;
};

// One step of "normalizer" in tokenizer.json. Immutable; any thread may call.
class Normalizer {
 public:
  // Takes Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents,
  // Replace, Prepend and ByteLevel; JSON's null gives a null pointer.
  // INVALID_ARGUMENT: another type, or malformed.
  static absl::StatusOr<std::unique_ptr<const Normalizer>> FromJson(
      const Json& json);

  virtual ~Normalizer() = default;

  // RESOURCE_EXHAUSTED: a regex met its limits, or the text grew beyond 1 GiB.
  virtual absl::Status Apply(NormalizedText* text) const = 0;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_NORMALIZER_H_
