#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_METASPACE_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_METASPACE_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/json.h"
#include "server/model/tokenizer/pre_tokenizer.h"
#include "server/model/tokenizer/words.h"

namespace cupola::model::tokenizer {

// SentencePiece's way with spaces: each becomes a visible character, U+2581
// unless the file says otherwise, one is put in front, and words start with it.
// Both a pre-tokenizer and, backwards, a decoder.
class Metaspace : public PreTokenizer {
 public:
  enum class Prepend { kAlways, kFirst, kNever };

  // INVALID_ARGUMENT: malformed, or the replacement is not one character.
  static absl::StatusOr<Metaspace> FromJson(const Json& json);

  absl::Status Apply(Words* words) const override;

  const std::string& replacement() const { return replacement_; }
  // Whether decoding drops the space that encoding put in front.
  bool drops_first() const { return prepend_ != Prepend::kNever; }

 private:
  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)),
        prepend_(prepend),
        split_(split) {}

  std::string replacement_;
  Prepend prepend_;
  bool split_;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_METASPACE_H_
