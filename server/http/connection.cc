#include "server/http/connection.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace cupola::http {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";

absl::Status TooLarge(absl::string_view bytes, size_t most) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the body has ", bytes, " bytes; accepted: at most ", most));
}

}  // namespace

std::string Connection::Header(const char* name) const {
  const char* value = mg_get_header(connection_, name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<std::string> Connection::ReadBody(size_t most) {
  const long long length = info().content_length;  // -1: chunked, or none
  if (length > static_cast<long long>(most)) {
    return TooLarge(absl::StrCat(length), most);
  }
  if (absl::EqualsIgnoreCase(Header("Expect"), "100-continue")) {
    mg_write(connection_, kContinue, sizeof kContinue - 1);
  }
  std::string body;
  while (length < 0 || body.size() < static_cast<size_t>(length)) {
    const size_t before = body.size();
    const size_t left = length < 0 ? kPieceBytes : length - before;
    body.resize(before + std::min(left, kPieceBytes));
    const int got =
        mg_read(connection_, body.data() + before, body.size() - before);
    body.resize(before + std::max(got, 0));
    if (body.size() > most) return TooLarge("more", most);
    if (got == 0 && length < 0) break;
    if (got <= 0) return absl::CancelledError("the body ends early");
  }
  return body;
}

int Connection::Reply(const HttpAnswer& answer, const std::string& headers) {
  const std::string head = absl::StrCat(
      "HTTP/1.1 ", answer.code, " ", HttpReason(answer.code),
      "\r\nContent-Type: ", answer.type,
      "\r\nContent-Length: ", answer.body.size(),
      "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
      // What a client still sends is not read.
      "Connection: close\r\n", answer.headers, headers, "\r\n");
  mg_write(connection_, head.data(), head.size());
  if (method() != "HEAD") {
    mg_write(connection_, answer.body.data(), answer.body.size());
  }
  return answer.code;
}

}  // namespace cupola::http
