#ifndef CUPOLA_SERVER_ENGINE_ROW_RULES_H_
#define CUPOLA_SERVER_ENGINE_ROW_RULES_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/model.h"
#include "storage/digest.h"

namespace cupola::engine {

// How documents become rows of tokens, as it is asked for; the values mean what
// proto/cupola/v1/datasets.proto says, and are numbered as there.
struct Tokenization {
  enum class Layout : uint8_t { kDefault = 0, kOneRow = 1, kPacked = 2 };
  enum class Bos : uint8_t { kDefault = 0, kNone = 1, kRow = 2, kDocument = 3 };
  enum class Separator : uint8_t { kUnset = 0, kNone = 1, kEos = 2, kBos = 3 };
  enum class TooLong : uint8_t { kDefault = 0, kRefuse = 1, kCut = 2 };

  std::string model;
  Layout layout = Layout::kDefault;
  int64_t row_tokens = 0;
  Bos bos = Bos::kDefault;
  Separator separator = Separator::kUnset;
  TooLong too_long = TooLong::kDefault;
};

// The same, understood: nothing is left to a default, and the special tokens
// are ids.
struct RowRules {
  Tokenization how;
  int32_t bos = -1, separator = -1;  // -1: none
  int32_t vocabulary = 0;            // ids are below

  // INVALID_ARGUMENT names the field. `texts`: of the dataset.
  static absl::StatusOr<RowRules> Resolve(const Tokenization& how, bool texts,
                                          const model::ModelSource& model);

  // Of the rows that a dataset of this content becomes.
  storage::Digest DigestOf(const storage::Digest& content,
                           const model::Tokenizer& tokenizer) const;
};

// Makes rows of documents, one after another, and hands them on. Holds one row.
class RowMaker {
 public:
  using Sink = std::function<absl::Status(const std::vector<int32_t>& row)>;
  RowMaker(const RowRules& rules, Sink sink)
      : rules_(rules), sink_(std::move(sink)) {}

  // A document's ids, without special tokens of the rules. INVALID_ARGUMENT
  // names the document: too long, empty, ids outside the vocabulary.
  absl::Status Add(const std::vector<int32_t>& ids);
  // The last row, where it is short.
  absl::Status Finish();

  int64_t documents() const { return documents_; }
  int64_t cut() const { return cut_; }  // documents
  int64_t longest() const { return longest_; }
  int64_t tokens() const { return tokens_; }

 private:
  absl::Status AddToPack(int32_t id);
  absl::Status Emit();

  const RowRules rules_;
  const Sink sink_;
  std::vector<int32_t> row_;
  int64_t documents_ = 0, cut_ = 0, longest_ = 0, tokens_ = 0;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ROW_RULES_H_
