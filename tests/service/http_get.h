#ifndef CUPOLA_TESTS_SERVICE_HTTP_GET_H_
#define CUPOLA_TESTS_SERVICE_HTTP_GET_H_

#include <string>

namespace cupola::testing {

// Sends `request` (complete, with its blank line) to 127.0.0.1:port and returns
// all that comes back until the server closes; empty when it cannot connect.
std::string HttpExchange(int port, const std::string& request);

// The whole answer to GET `path` with `Connection: close`.
std::string HttpGet(int port, const std::string& path);

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_SERVICE_HTTP_GET_H_
