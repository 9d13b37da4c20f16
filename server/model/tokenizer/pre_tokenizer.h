#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_PRE_TOKENIZER_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_PRE_TOKENIZER_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/json.h"
#include "server/model/tokenizer/words.h"

namespace cupola::model::tokenizer {

// One step of "pre_tokenizer" in tokenizer.json. Immutable; any thread may
// call.
class PreTokenizer {
 public:
  // What tokenizer.json asks for, flattened. A ByteLevel that comes last does
  // not write the byte alphabet: `byte_level` tells that the words stay bytes,
  // for a model whose vocabulary was turned into bytes as well.
  struct Steps {
    std::vector<std::unique_ptr<const PreTokenizer>> steps;
    bool byte_level = false;
  };
  // Takes Sequence, ByteLevel, Split, Digits, Punctuation, Whitespace,
  // WhitespaceSplit and Metaspace; JSON's null gives no steps.
  // INVALID_ARGUMENT: another type, or malformed.
  static absl::StatusOr<Steps> FromJson(const Json& json);

  virtual ~PreTokenizer() = default;

  // RESOURCE_EXHAUSTED: a regex met its limits.
  virtual absl::Status Apply(Words* words) const = 0;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_PRE_TOKENIZER_H_
