#include "server/service/datasets_conversion.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/prompt_conversion.h"

namespace cupola::service {
namespace {

using engine::Tokenization;

// Each takes more in memory than on the wire.
constexpr int kMaxRowsAtOnce = 1 << 20;

absl::Status CheckEnum(bool valid, const char* field, int value,
                       const char* accepted) {
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "tokenization.", field, " is ", value, "; accepted: ", accepted));
}

std::string ToBytes(const storage::Digest& digest) {
  return std::string(digest.begin(), digest.end());
}

absl::StatusOr<Tokenization> TokenizationOf(const v1::Tokenization& message) {
  using T = v1::Tokenization;
  RETURN_IF_ERROR(CheckEnum(T::Layout_IsValid(message.layout()), "layout",
                            message.layout(), "ONE_ROW, PACKED or unset"));
  RETURN_IF_ERROR(CheckEnum(T::Bos_IsValid(message.bos()), "bos", message.bos(),
                            "BOS_NONE, BOS_ROW, BOS_DOCUMENT or unset"));
  RETURN_IF_ERROR(CheckEnum(T::Separator_IsValid(message.separator()),
                            "separator", message.separator(),
                            "SEPARATOR_NONE, SEPARATOR_EOS, SEPARATOR_BOS"));
  RETURN_IF_ERROR(CheckEnum(T::TooLong_IsValid(message.too_long()), "too_long",
                            message.too_long(), "REFUSE, CUT or unset"));
  // Numbered alike.
  Tokenization how;
  how.model = message.model();
  how.layout = static_cast<Tokenization::Layout>(message.layout());
  how.row_tokens = message.row_tokens();
  how.bos = static_cast<Tokenization::Bos>(message.bos());
  how.separator = static_cast<Tokenization::Separator>(message.separator());
  how.too_long = static_cast<Tokenization::TooLong>(message.too_long());
  return how;
}

}  // namespace

absl::StatusOr<Tokenization> FromProto(const v1::Tokenization& message) {
  RETURN_IF_ERROR(CheckName(message.model(), "tokenization.model"));
  return TokenizationOf(message);
}

absl::StatusOr<engine::DatasetRows> FromProto(const v1::DatasetRows& message) {
  RETURN_IF_ERROR(CheckName(message.dataset(), "rows.dataset"));
  engine::DatasetRows rows;
  rows.dataset = message.dataset();
  ASSIGN_OR_RETURN(rows.how, TokenizationOf(message.tokenization()));
  rows.first_row = message.first_row();
  rows.row_count = message.row_count();
  rows.skip_positions = message.skip_positions();
  return rows;
}
v1::Tokenization ToProto(const Tokenization& how) {
  v1::Tokenization message;
  message.set_model(how.model);
  message.set_layout(static_cast<v1::Tokenization::Layout>(how.layout));
  message.set_row_tokens(how.row_tokens);
  message.set_bos(static_cast<v1::Tokenization::Bos>(how.bos));
  message.set_separator(
      static_cast<v1::Tokenization::Separator>(how.separator));
  message.set_too_long(static_cast<v1::Tokenization::TooLong>(how.too_long));
  return message;
}

absl::StatusOr<engine::Documents> TakeDocuments(
    v1::UploadDatasetRequest::Rows* rows) {
  if (rows->texts_size() > 0 && rows->tokens_size() > 0) {
    return absl::InvalidArgumentError(
        "rows: both texts and tokens; accepted: one of the two");
  }
  if (std::max(rows->texts_size(), rows->tokens_size()) > kMaxRowsAtOnce) {
    return absl::InvalidArgumentError(absl::StrCat(
        "rows: ", std::max(rows->texts_size(), rows->tokens_size()),
        " documents in one message; accepted: ", kMaxRowsAtOnce));
  }
  engine::Documents documents;
  documents.texts.reserve(rows->texts_size());
  for (std::string& text : *rows->mutable_texts()) {
    documents.texts.push_back(std::move(text));
  }
  documents.ids.reserve(rows->tokens_size());
  for (const v1::TokenIds& tokens : rows->tokens()) {
    for (uint32_t id : tokens.ids()) {
      if (id > uint32_t{std::numeric_limits<int32_t>::max()}) {
        return absl::InvalidArgumentError(
            absl::StrCat("rows.tokens: id ", id, "; accepted: 0 to ",
                         std::numeric_limits<int32_t>::max()));
      }
    }
    documents.ids.emplace_back(tokens.ids().begin(), tokens.ids().end());
  }
  return documents;
}

v1::TokenizedDataset ToProto(const engine::TokenizedInfo& info) {
  v1::TokenizedDataset message;
  *message.mutable_tokenization() = ToProto(info.how);
  message.set_rows(info.rows);
  message.set_tokens(info.tokens);
  message.set_longest(info.longest);
  message.set_cut(info.cut);
  message.set_digest(ToBytes(info.digest));
  message.set_tokenizer_digest(info.tokenizer);
  return message;
}

v1::Dataset ToProto(const engine::DatasetInfo& info) {
  v1::Dataset message;
  message.set_name(info.name);
  message.set_kind(info.texts ? v1::Dataset::TEXTS : v1::Dataset::TOKENS);
  message.set_rows(info.rows);
  message.set_bytes(info.bytes);
  message.set_owner(info.owner);
  message.set_error(info.error);
  message.set_sha256(ToBytes(info.digest));
  message.set_created_micros(absl::ToUnixMicros(info.created));
  if (info.expires < absl::InfiniteFuture()) {
    message.set_expires_micros(absl::ToUnixMicros(info.expires));
  }
  for (const engine::TokenizedInfo& tokenized : info.tokenized) {
    *message.add_tokenized() = ToProto(tokenized);
  }
  return message;
}

v1::DatasetRowsResponse ToProto(engine::ReadDatasetAnswer answer) {
  v1::DatasetRowsResponse message;
  message.set_rows(answer.rows);
  for (std::string& text : answer.documents.texts) {
    message.add_texts(std::move(text));
  }
  for (const std::vector<int32_t>& ids : answer.documents.ids) {
    message.add_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
  }
  return message;
}

}  // namespace cupola::service
