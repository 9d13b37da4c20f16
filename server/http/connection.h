#ifndef CUPOLA_SERVER_HTTP_CONNECTION_H_
#define CUPOLA_SERVER_HTTP_CONNECTION_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "civetweb.h"
#include "server/http/http_answer.h"
#include "server/http/socket_watch.h"

namespace cupola::http {

// One request of CivetWeb's, and its answer. Lives on the thread, and as long
// as the call, that CivetWeb handles the request in.
class Connection {
 public:
  // `watch` outlives this.
  Connection(mg_connection* connection, SocketWatch* watch);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  absl::string_view method() const { return info().request_method; }
  absl::string_view path() const { return info().local_uri; }
  std::string address() const { return info().remote_addr; }
  // Empty where there is none.
  std::string Header(const char* name) const;

  // What ReadBody will read at most, as the client has announced it; negative:
  // it has not.
  int64_t announced_bytes() const { return info().content_length; }
  // The body. RESOURCE_EXHAUSTED: it has more than `most` bytes; CANCELLED: the
  // client stopped before its end, or took more than a minute.
  absl::StatusOr<std::string> ReadBody(int64_t most);

  // Whether the client has closed its side, and so waits for no answer.
  bool Gone() const;

  // Sends the answer, which may take two minutes; `headers` are further ones,
  // each with its line's end. Of a body that has not been read yet, what comes
  // within half a second is thrown away: a connection that is closed over
  // unread bytes is reset, and the answer lost. Then the connection ends.
  // Returns the answer's code, which tells CivetWeb that the request has been
  // handled.
  int Reply(const HttpAnswer& answer, const std::string& headers = "");

 private:
  const mg_request_info& info() const {
    return *mg_get_request_info(connection_);
  }
  void Allow(absl::Duration time);
  // False: the client takes no more.
  bool Write(absl::string_view bytes);
  void ThrowAwayUnread();

  mg_connection* const connection_;
  SocketWatch* const watch_;
  const int socket_;  // negative: not found, and not watched
  bool all_read_ = false;
};

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_CONNECTION_H_
