#include "server/engine/dataset_records.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using model::Json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

template <typename Parse>
absl::Status Parsed(const std::string& key, const std::string& text,
                    const Parse& parse) {
  ASSIGN_OR_RETURN(const Json json, model::ParseJson(text, key));
  try {
    parse(json);
  } catch (const Json::exception& error) {
    return absl::DataLossError(
        absl::StrCat("the record ", key, " is damaged: ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace

storage::Digest DigestFromHex(absl::string_view hex) {
  storage::Digest digest{};
  const bool good = hex.size() == 2 * digest.size() &&
                    std::all_of(hex.begin(), hex.end(), [](char c) {
                      return absl::ascii_isxdigit(static_cast<uint8_t>(c));
                    });
  if (good) {
    const std::string bytes = absl::HexStringToBytes(hex);
    std::copy(bytes.begin(), bytes.end(), digest.begin());
  }
  return digest;
}

Json ToJson(const Tokenization& how) {
  return {{"model", how.model},
          {"layout", static_cast<int>(how.layout)},
          {"row_tokens", how.row_tokens},
          {"bos", static_cast<int>(how.bos)},
          {"separator", static_cast<int>(how.separator)},
          {"too_long", static_cast<int>(how.too_long)}};
}

Tokenization TokenizationFromJson(const Json& json) {
  Tokenization how;
  how.model = json.at("model");
  how.layout = static_cast<Tokenization::Layout>(json.at("layout").get<int>());
  how.row_tokens = json.at("row_tokens");
  how.bos = static_cast<Tokenization::Bos>(json.at("bos").get<int>());
  how.separator =
      static_cast<Tokenization::Separator>(json.at("separator").get<int>());
  how.too_long =
      static_cast<Tokenization::TooLong>(json.at("too_long").get<int>());
  return how;
}

std::string ToRecord(const DatasetRecord& record) {
  const DatasetInfo& info = record.info;
  const bool expires = info.expires < absl::InfiniteFuture();
  return Dump({{"texts", info.texts},
               {"rows", info.rows},
               {"bytes", info.bytes},
               {"digest", storage::ToHex(info.digest)},
               {"created", absl::ToUnixMicros(info.created)},
               {"expires", expires ? absl::ToUnixMicros(info.expires) : 0},
               {"owner", info.owner},
               {"store", record.store}});
}

absl::StatusOr<DatasetRecord> ParseDataset(const std::string& key,
                                           const std::string& text) {
  DatasetRecord record;
  RETURN_IF_ERROR(Parsed(key, text, [&record](const Json& json) {
    DatasetInfo& info = record.info;
    info.texts = json.at("texts");
    info.rows = json.at("rows");
    info.bytes = json.at("bytes");
    info.digest = DigestFromHex(json.at("digest").get<std::string>());
    info.created = absl::FromUnixMicros(json.at("created"));
    const int64_t expires = json.at("expires");
    if (expires > 0) info.expires = absl::FromUnixMicros(expires);
    info.owner = json.value("owner", "");
    record.store = json.at("store");
  }));
  return record;
}

std::string ToRecord(const TokenizedRecord& record) {
  const TokenizedInfo& info = record.info;
  return Dump({{"how", ToJson(info.how)},
               {"rows", info.rows},
               {"tokens", info.tokens},
               {"longest", info.longest},
               {"cut", info.cut},
               {"digest", storage::ToHex(info.digest)},
               {"content", storage::ToHex(info.content)},
               {"tokenizer", absl::BytesToHexString(info.tokenizer)},
               {"store", record.store},
               {"bytes", record.bytes}});
}

absl::StatusOr<TokenizedRecord> ParseTokenized(const std::string& key,
                                               const std::string& text) {
  TokenizedRecord record;
  RETURN_IF_ERROR(Parsed(key, text, [&record](const Json& json) {
    TokenizedInfo& info = record.info;
    info.how = TokenizationFromJson(json.at("how"));
    info.rows = json.at("rows");
    info.tokens = json.at("tokens");
    info.longest = json.at("longest");
    info.cut = json.at("cut");
    info.digest = DigestFromHex(json.at("digest").get<std::string>());
    info.content = DigestFromHex(json.at("content").get<std::string>());
    info.tokenizer =
        absl::HexStringToBytes(json.at("tokenizer").get<std::string>());
    record.store = json.at("store");
    record.bytes = json.at("bytes");
  }));
  return record;
}

}  // namespace cupola::engine
