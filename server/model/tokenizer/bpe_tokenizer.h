#ifndef CUPOLA_SERVER_MODEL_TOKENIZER_BPE_TOKENIZER_H_
#define CUPOLA_SERVER_MODEL_TOKENIZER_BPE_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/model/tokenizer/added_tokens.h"
#include "server/model/tokenizer/bpe.h"
#include "server/model/tokenizer/decoder.h"
#include "server/model/tokenizer/normalizer.h"
#include "server/model/tokenizer/pre_tokenizer.h"
#include "server/model/tokenizer/tokenizer.h"

namespace cupola::model::tokenizer {

// The stages of a tokenizer.json in their order: added tokens that are looked
// for in the raw text, normalizer, added tokens in what that gives,
// pre-tokenizer, BPE; and the decoder for the way back.
class BpeTokenizer : public Tokenizer {
 public:
  struct Parts {
    std::unique_ptr<const Normalizer> normalizer;  // may be null
    PreTokenizer::Steps pre_tokenizer;
    Bpe bpe;
    AddedTokens added;
    Decoder decoder;
    std::optional<int32_t> bos;
    std::optional<int32_t> declared_bos;
    std::string fingerprint;
  };

  explicit BpeTokenizer(Parts parts);

  absl::StatusOr<std::vector<int32_t>> Encode(
      absl::string_view text) const override;
  absl::StatusOr<std::string> Decode(
      const std::vector<int32_t>& ids) const override;
  absl::StatusOr<std::string> Piece(int32_t id) const override;
  int32_t vocabulary_size() const override { return vocabulary_size_; }
  std::optional<int32_t> bos_id() const override { return parts_.bos; }
  std::optional<int32_t> declared_bos_id() const override {
    return parts_.declared_bos;
  }
  const std::string& fingerprint() const override { return parts_.fingerprint; }

 private:
  // Text between added tokens of the raw kind; `first`: the input's start.
  absl::Status EncodeText(absl::string_view text, bool first,
                          std::vector<int32_t>* ids) const;
  // Text without any added token.
  absl::Status EncodeWords(NormalizedText text,
                           std::vector<int32_t>* ids) const;
  // INVALID_ARGUMENT: no token has this id.
  absl::Status CheckId(int32_t id) const;

  const Parts parts_;
  int32_t vocabulary_size_;
};

}  // namespace cupola::model::tokenizer

#endif  // CUPOLA_SERVER_MODEL_TOKENIZER_BPE_TOKENIZER_H_
