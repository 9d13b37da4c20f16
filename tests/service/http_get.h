#ifndef CUPOLA_TESTS_SERVICE_HTTP_GET_H_
#define CUPOLA_TESTS_SERVICE_HTTP_GET_H_

#include <string>

namespace cupola::testing {

// A connection to 127.0.0.1:port, for clients that take their time.
class HttpClient {
 public:
  explicit HttpClient(int port);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // False: it is not connected, or the server takes no more.
  bool Send(const std::string& bytes);
  // The next `bytes` that come, fewer when the server closes before.
  std::string Read(size_t bytes);
  std::string ReadAll();

 private:
  const int socket_;
  bool connected_ = false;
};

// Sends `request` (complete, with its blank line) to 127.0.0.1:port and returns
// all that comes back until the server closes; empty when it cannot connect.
std::string HttpExchange(int port, const std::string& request);

// The whole answer to GET `path` with `Connection: close`.
std::string HttpGet(int port, const std::string& path);

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_SERVICE_HTTP_GET_H_
