#include "server/engine/row_rules.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using Layout = Tokenization::Layout;
using Bos = Tokenization::Bos;
using Separator = Tokenization::Separator;
using TooLong = Tokenization::TooLong;

absl::StatusOr<int32_t> BosOf(const model::ModelSource& model,
                              const char* field) {
  if (!model.tokenizer().bos_id().has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokenization.", field,
        ": the model's tokenizer has no BOS token; accepted: another value"));
  }
  return *model.tokenizer().bos_id();
}

}  // namespace

absl::StatusOr<RowRules> RowRules::Resolve(const Tokenization& how, bool texts,
                                           const model::ModelSource& model) {
  RowRules rules{.how = how,
                 .vocabulary = static_cast<int32_t>(model.config().d_vocab)};
  Tokenization& known = rules.how;
  if (known.layout == Layout::kDefault) known.layout = Layout::kOneRow;
  const int64_t context = model.config().n_ctx;
  if (known.row_tokens < 0 || known.row_tokens > context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokenization.row_tokens is ", known.row_tokens, "; accepted: 1 to ",
        context, ", the model's context, or 0 for that"));
  }
  if (known.row_tokens == 0) known.row_tokens = context;
  if (known.bos == Bos::kDefault) {
    const bool wanted = texts && model.config().default_prepend_bos &&
                        model.tokenizer().bos_id().has_value();
    known.bos = wanted ? Bos::kRow : Bos::kNone;
  }
  if (known.bos != Bos::kNone) {
    ASSIGN_OR_RETURN(rules.bos, BosOf(model, "bos"));
  }
  if (known.layout == Layout::kOneRow) {
    if (known.separator != Separator::kUnset) {
      return absl::InvalidArgumentError(
          "tokenization.separator is set, but each document has a row of its "
          "own; accepted: unset, or layout PACKED");
    }
    if (known.bos == Bos::kDocument) known.bos = Bos::kRow;  // the same
    if (known.too_long == TooLong::kDefault) known.too_long = TooLong::kRefuse;
    return rules;
  }
  if (known.too_long != TooLong::kDefault) {
    return absl::InvalidArgumentError(
        "tokenization.too_long is set, but packed documents go on in the next "
        "row; accepted: unset, or layout ONE_ROW");
  }
  if (known.row_tokens < 2 && known.bos == Bos::kRow) {
    return absl::InvalidArgumentError(
        "tokenization.row_tokens is 1, which BOS takes; accepted: 2 or more");
  }
  switch (known.separator) {
    case Separator::kUnset:
      return absl::InvalidArgumentError(
          "tokenization.separator is not set; accepted with layout PACKED: "
          "SEPARATOR_NONE, SEPARATOR_EOS, SEPARATOR_BOS");
    case Separator::kNone:
      break;
    case Separator::kEos:
      if (model.eos_token_ids().empty()) {
        return absl::InvalidArgumentError(
            "tokenization.separator is SEPARATOR_EOS, but the model's files "
            "name no EOS token; accepted: another value");
      }
      rules.separator = model.eos_token_ids().front();
      break;
    case Separator::kBos: {
      ASSIGN_OR_RETURN(rules.separator, BosOf(model, "separator"));
      break;
    }
  }
  return rules;
}

storage::Digest RowRules::DigestOf(const storage::Digest& content,
                                   const model::Tokenizer& tokenizer) const {
  return storage::Hasher("tokenized/1")
      .AddDigest(content)
      .AddBytes(tokenizer.fingerprint())
      .AddInt(static_cast<int64_t>(how.layout))
      .AddInt(how.row_tokens)
      .AddInt(static_cast<int64_t>(how.bos))
      .AddInt(static_cast<int64_t>(how.too_long))
      .AddInt(bos)
      .AddInt(separator)
      .Finish();
}

absl::Status RowMaker::Add(const std::vector<int32_t>& ids) {
  const int64_t document = documents_++;
  if (ids.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("document ", document, " has no tokens"));
  }
  for (size_t p = 0; p < ids.size(); ++p) {
    if (ids[p] < 0 || ids[p] >= rules_.vocabulary) {
      return absl::InvalidArgumentError(absl::StrCat(
          "document ", document, ": token id ", ids[p], " at position ", p,
          " is outside the vocabulary (0 to ", rules_.vocabulary - 1, ")"));
    }
  }
  const bool begins = rules_.bos >= 0;
  if (rules_.how.layout == Layout::kPacked) {
    if (document > 0 && rules_.separator >= 0) {
      RETURN_IF_ERROR(AddToPack(rules_.separator));
    }
    if (begins && rules_.how.bos == Bos::kDocument) {
      RETURN_IF_ERROR(AddToPack(rules_.bos));
    }
    for (int32_t id : ids) RETURN_IF_ERROR(AddToPack(id));
    return absl::OkStatus();
  }
  const auto length = static_cast<int64_t>(ids.size() + (begins ? 1 : 0));
  const int64_t most = rules_.how.row_tokens;
  if (length > most) {
    if (rules_.how.too_long == TooLong::kRefuse) {
      return absl::InvalidArgumentError(absl::StrCat(
          "document ", document, " has ", length, " tokens",
          begins ? " with BOS" : "", "; a row takes ", most,
          " (tokenization.row_tokens, or the model's context): accepted with "
          "too_long CUT, or layout PACKED"));
    }
    ++cut_;
  }
  if (begins) row_.push_back(rules_.bos);
  const int64_t kept = std::min(length, most) - (begins ? 1 : 0);
  row_.insert(row_.end(), ids.begin(), ids.begin() + kept);
  return Emit();
}

absl::Status RowMaker::AddToPack(int32_t id) {
  if (row_.empty() && rules_.how.bos == Bos::kRow) row_.push_back(rules_.bos);
  row_.push_back(id);
  return static_cast<int64_t>(row_.size()) < rules_.how.row_tokens
             ? absl::OkStatus()
             : Emit();
}

absl::Status RowMaker::Emit() {
  const auto length = static_cast<int64_t>(row_.size());
  tokens_ += length;
  longest_ = std::max(longest_, length);
  RETURN_IF_ERROR(sink_(row_));
  row_.clear();
  return absl::OkStatus();
}

absl::Status RowMaker::Finish() {
  return row_.empty() ? absl::OkStatus() : Emit();
}

}  // namespace cupola::engine
