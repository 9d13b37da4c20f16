#include "server/service/token_file.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "openssl/sha.h"

namespace cupola::service {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr int64_t kMaxLimit = int64_t{1} << 50;

absl::Status Refuse(absl::string_view what, absl::string_view accepted) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, "; accepted: ", accepted));
}

absl::Status ReadName(absl::string_view text, std::string* name) {
  const bool good =
      text.size() <= kMaxNameBytes &&
      std::all_of(text.begin(), text.end(), [](char c) {
        return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
      });
  if (!good) {
    return Refuse("the name", "1 to 64 of A-Z a-z 0-9 . _ -");
  }
  *name = std::string(text);
  return absl::OkStatus();
}

absl::Status ReadRole(absl::string_view text, Role* role) {
  if (text != "read" && text != "admin") {
    return Refuse("the role", "read, admin");
  }
  *role = text == "admin" ? Role::kAdmin : Role::kRead;
  return absl::OkStatus();
}

absl::Status ReadHash(absl::string_view text, TokenHash* hash) {
  const bool good = text.size() == 2 * hash->size() &&
                    std::all_of(text.begin(), text.end(), absl::ascii_isxdigit);
  if (!good) {
    return Refuse("the SHA-256 of the token", "64 hexadecimal digits");
  }
  const std::string bytes = absl::HexStringToBytes(text);
  std::copy(bytes.begin(), bytes.end(), hash->begin());
  return absl::OkStatus();
}

absl::Status ReadLimit(absl::string_view key, absl::string_view text,
                       int64_t* limit) {
  static constexpr absl::string_view kSuffixes = "KMG";
  absl::string_view digits = text;
  int shift = 0;
  if (key == "bytes_per_minute" && !digits.empty()) {
    const size_t suffix = kSuffixes.find(digits.back());
    if (suffix != absl::string_view::npos) {
      shift = 10 * (static_cast<int>(suffix) + 1);
      digits.remove_suffix(1);
    }
  }
  if (!absl::SimpleAtoi(digits, limit) || *limit < 0 ||
      *limit > (kMaxLimit >> shift)) {
    return Refuse(absl::StrCat(key, "=", text), "a number, 0 for none");
  }
  *limit <<= shift;
  return absl::OkStatus();
}

absl::Status ReadExpiry(absl::string_view text, absl::Time* expires) {
  std::string error;
  if (absl::ParseTime("%Y-%m-%d", text, expires, &error) ||
      absl::ParseTime(absl::RFC3339_sec, text, expires, &error)) {
    return absl::OkStatus();
  }
  return Refuse(absl::StrCat("expires=", text),
                "2027-01-31 or 2027-01-31T12:00:00Z");
}

absl::Status ReadOption(absl::string_view field, Token* token) {
  const std::pair<absl::string_view, absl::string_view> option =
      absl::StrSplit(field, absl::MaxSplits('=', 1));
  const auto& [key, value] = option;
  if (key == "expires") return ReadExpiry(value, &token->expires);
  Limits& limits = token->limits;
  if (key == "requests_per_minute") {
    return ReadLimit(key, value, &limits.requests_per_minute);
  }
  if (key == "bytes_per_minute") {
    return ReadLimit(key, value, &limits.bytes_per_minute);
  }
  if (key == "concurrent") return ReadLimit(key, value, &limits.concurrent);
  // Unquoted: a hash or a token in the wrong place goes to no log.
  return Refuse("an unknown option",
                "expires, requests_per_minute, bytes_per_minute, concurrent");
}

absl::Status ReadLine(const std::vector<absl::string_view>& fields,
                      Token* token) {
  if (fields.size() < 3) {
    return Refuse("a field is missing", "NAME ROLE SHA256 [option=value ...]");
  }
  absl::Status status = ReadName(fields[0], &token->name);
  if (status.ok()) status = ReadRole(fields[1], &token->role);
  if (status.ok()) status = ReadHash(fields[2], &token->hash);
  for (size_t i = 3; status.ok() && i < fields.size(); ++i) {
    status = ReadOption(fields[i], token);
  }
  return status;
}

}  // namespace

TokenHash HashToken(absl::string_view token) {
  TokenHash hash;
  SHA256(reinterpret_cast<const uint8_t*>(token.data()), token.size(),
         hash.data());
  return hash;
}

absl::StatusOr<std::vector<Token>> ParseTokens(absl::string_view text,
                                               const std::string& path,
                                               const Limits& defaults) {
  std::vector<Token> tokens;
  std::set<std::string> names;
  std::set<TokenHash> hashes;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = line.substr(0, line.find('#'));
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (fields.empty()) continue;
    Token token;
    token.limits = defaults;
    absl::Status status = ReadLine(fields, &token);
    if (status.ok() && !names.insert(token.name).second) {
      status = Refuse("the name comes twice", "each name once");
    }
    if (status.ok() && !hashes.insert(token.hash).second) {
      status = Refuse("the token comes twice", "each token once");
    }
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", number, ": ", status.message()));
    }
    tokens.push_back(std::move(token));
  }
  if (tokens.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": holds no token"));
  }
  return tokens;
}

}  // namespace cupola::service
