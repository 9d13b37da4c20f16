#ifndef CUPOLA_SERVER_HTTP_JSON_API_H_
#define CUPOLA_SERVER_HTTP_JSON_API_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/channel.h"
#include "server/http/byte_budget.h"
#include "server/http/http_answer.h"

namespace cupola::http {

// One question over HTTP.
struct JsonCall {
  std::string service, method;  // "Analysis", "GetFeatures"
  std::string body;             // the request in Protobuf's JSON mapping
  bool frames = false;          // answer as ToFrames, else as JSON
  absl::Duration timeout = absl::Seconds(60);
  // Of the caller, passed on.
  std::string authorization, address, traceparent;
  // Whether the caller has gone; asked now and then. Null: it has not.
  std::function<bool()> gone;
  ByteBudget::Share* share = nullptr;  // what the question takes
};

// Every method of cupola.v1's services whose request is one message, found in
// their descriptors: a new one is here by itself. It calls the server's own
// services through a channel, so that checks, roles, quotas, deadlines, metrics
// and log lines are those of a gRPC call. A streamed answer is put together: a
// header with its chunks is the header message; a stream of parts is one
// message of all parts. Not here: Jobs.Watch, which does not end (ask Get).
// A traceparent comes back, as over gRPC.
//
// Call blocks its thread until the answer is there. Any thread may call.
class JsonApi {
 public:
  // Larger answers, and larger bodies made of them, are refused with both
  // sizes.
  JsonApi(std::shared_ptr<grpc::Channel> channel, int64_t max_answer_bytes);

  // Null: there is no such method here.
  static const google::protobuf::MethodDescriptor* Find(
      absl::string_view service, absl::string_view method);

  // RESOURCE_EXHAUSTED also where the share does not get what the request and
  // the answer take in memory, which is held before it is allocated.
  HttpAnswer Call(JsonCall call) const;

  int64_t max_answer_bytes() const { return max_answer_bytes_; }

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const int64_t max_answer_bytes_;
};

// The services that have methods here.
inline constexpr const char* kJsonServices[] = {"Analysis", "Catalog", "Admin",
                                                "Jobs", "Datasets", "Stores"};

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_JSON_API_H_
