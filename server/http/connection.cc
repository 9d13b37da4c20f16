#include "server/http/connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace cupola::http {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr absl::Duration kBodyTime = absl::Minutes(1);
constexpr absl::Duration kAnswerTime = absl::Minutes(2);
constexpr absl::Duration kUnreadTime = absl::Milliseconds(500);

absl::Status TooLarge(absl::string_view bytes, int64_t most) {
  return absl::ResourceExhaustedError(
      absl::StrCat("the body has ", bytes, " bytes; accepted: at most ", most));
}

int SocketOf(mg_connection* connection) {
  const mg_request_info& info = *mg_get_request_info(connection);
  return FindSocket(info.remote_addr, info.remote_port, info.server_port);
}

}  // namespace

Connection::Connection(mg_connection* connection, SocketWatch* watch)
    : connection_(connection), watch_(watch), socket_(SocketOf(connection)) {}

Connection::~Connection() { watch_->Forget(socket_); }

void Connection::Allow(absl::Duration time) {
  if (socket_ >= 0) watch_->Set(socket_, absl::Now() + time);
}

std::string Connection::Header(const char* name) const {
  const char* value = mg_get_header(connection_, name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<std::string> Connection::ReadBody(int64_t most) {
  const int64_t length = announced_bytes();  // negative: chunked, or none
  if (length > most) return TooLarge(absl::StrCat(length), most);
  if (absl::EqualsIgnoreCase(Header("Expect"), "100-continue")) {
    Write(kContinue);
  }
  Allow(kBodyTime);
  std::string body;
  while (length < 0 || static_cast<int64_t>(body.size()) < length) {
    const size_t before = body.size();
    const size_t left = length < 0 ? kPieceBytes : length - before;
    body.resize(before + std::min(left, kPieceBytes));
    const int got =
        mg_read(connection_, body.data() + before, body.size() - before);
    body.resize(before + std::max(got, 0));
    if (static_cast<int64_t>(body.size()) > most) return TooLarge("more", most);
    if (got == 0 && length < 0) break;
    if (got <= 0) return absl::CancelledError("the body ends early");
  }
  all_read_ = true;
  Allow(absl::InfiniteDuration());
  return body;
}

bool Connection::Gone() const {
  pollfd state = {socket_, POLLRDHUP, 0};  // without a socket: not looked at
  return ::poll(&state, 1, 0) > 0 &&
         (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

int Connection::Reply(const HttpAnswer& answer, const std::string& headers) {
  // CivetWeb would otherwise read the rest of the body, however long that is.
  mg_disable_connection_keep_alive(connection_);
  Allow(kAnswerTime);
  const std::string head = absl::StrCat(
      "HTTP/1.1 ", answer.code, " ", HttpReason(answer.code),
      "\r\nContent-Type: ", answer.type,
      "\r\nContent-Length: ", answer.body.size(),
      "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
      "Connection: close\r\n", answer.headers, headers, "\r\n");
  if (Write(head) && (method() == "HEAD" || Write(answer.body)) && !all_read_) {
    ThrowAwayUnread();
  }
  return answer.code;
}

bool Connection::Write(absl::string_view bytes) {
  while (!bytes.empty()) {
    const absl::string_view piece = bytes.substr(0, kPieceBytes);
    const int written = mg_write(connection_, piece.data(), piece.size());
    if (written != static_cast<int>(piece.size())) return false;
    bytes.remove_prefix(piece.size());
  }
  return true;
}

void Connection::ThrowAwayUnread() {
  if (socket_ < 0) return;
  Allow(kUnreadTime);
  ::shutdown(socket_, SHUT_WR);
  char unread[16 << 10];
  while (mg_read(connection_, unread, sizeof unread) > 0) {
  }
}

}  // namespace cupola::http
