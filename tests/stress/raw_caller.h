#ifndef CUPOLA_TESTS_STRESS_RAW_CALLER_H_
#define CUPOLA_TESTS_STRESS_RAW_CALLER_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"

namespace cupola::testing {

// Sends bytes to any method over a connection of its own. Not thread-safe.
class RawCaller {
 public:
  explicit RawCaller(const std::string& address);
  ~RawCaller();

  struct Answer {
    grpc::Status status;
    std::vector<std::string> messages;
  };
  Answer Call(const std::string& method, const std::string& request,
              std::chrono::seconds timeout) {
    return Call(method, std::vector<std::string>{request}, timeout);
  }
  // The same with a stream of messages, at least one.
  Answer Call(const std::string& method,
              const std::vector<std::string>& requests,
              std::chrono::seconds timeout);

 private:
  // Waits for the one operation under way; whether it succeeded.
  bool Next();
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
};

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_STRESS_RAW_CALLER_H_
