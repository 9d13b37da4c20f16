#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_DECODER_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_DECODER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/json.h"

namespace cupola::model::tokenizer {

// One step of "decoder" in tokenizer.json. Immutable; any thread may call.
class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  // Turns the tokens of one sequence into others, whose concatenation is text
  // once all steps are done. RESOURCE_EXHAUSTED: a regex met its limits.
  virtual absl::Status Apply(std::vector<std::string>* tokens) const = 0;
  // The same for a token that stands in the middle of a text; bytes that are
  // not UTF-8 by themselves stay as they are.
  virtual absl::Status ApplyToPiece(std::string* token) const = 0;
};

class Decoder {
 public:
  // Takes Sequence, ByteLevel, ByteFallback, Replace, Fuse, Strip and
  // Metaspace; JSON's null joins tokens with spaces, as `tokenizers` does.
  // INVALID_ARGUMENT: another type, or malformed.
  static absl::StatusOr<Decoder> FromJson(const Json& json);

  absl::StatusOr<std::string> Decode(std::vector<std::string> tokens) const;
  absl::StatusOr<std::string> Piece(std::string token) const;

 private:
  Decoder() = default;
  static absl::Status AddStep(const Json& json, Decoder* decoder);

  bool present_ = false;
  std::vector<std::unique_ptr<const DecoderStep>> steps_;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_DECODER_H_
