#ifndef CUPOLA_SERVER_HTTP_CONNECTION_H_
#define CUPOLA_SERVER_HTTP_CONNECTION_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "civetweb.h"
#include "server/http/http_answer.h"

namespace cupola::http {

// One request of CivetWeb's, and its answer. Lives on the thread, and as long
// as the call, that CivetWeb handles the request in.
class Connection {
 public:
  explicit Connection(mg_connection* connection) : connection_(connection) {}

  absl::string_view method() const { return info().request_method; }
  absl::string_view path() const { return info().local_uri; }
  std::string address() const { return info().remote_addr; }
  // Empty where there is none.
  std::string Header(const char* name) const;

  // The body. RESOURCE_EXHAUSTED: it has more than `most` bytes; CANCELLED: the
  // client stopped before its end.
  absl::StatusOr<std::string> ReadBody(size_t most);

  // Sends the answer; `headers` are further ones, each with its line's end.
  // Returns its code, which tells CivetWeb that the request has been handled.
  int Reply(const HttpAnswer& answer, const std::string& headers = "");

 private:
  const mg_request_info& info() const {
    return *mg_get_request_info(connection_);
  }

  mg_connection* const connection_;
};

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_CONNECTION_H_
