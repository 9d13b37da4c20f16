#ifndef CUPOLA_CLIENT_CPP_ROUTING_METADATA_H_
#define CUPOLA_CLIENT_CPP_ROUTING_METADATA_H_

#include <string>

#include "client/cpp/metadata_value.h"
#include "client/cpp/routing_key.h"
#include "grpcpp/client_context.h"

namespace cupola {

// The name a request asks about; empty for those about the server.
template <typename Request>
std::string NameOf(const Request& request) {
  if constexpr (requires { request.dictionary(); }) {
    if (!request.dictionary().empty()) return request.dictionary();
  }
  if constexpr (requires { request.jacobian(); }) {
    return request.jacobian().dictionary();
  } else if constexpr (requires { request.model(); }) {
    return request.model();
  } else if constexpr (requires { request.name(); }) {
    return request.name();
  } else {
    return "";
  }
}

// Adds what a proxy can choose a server by: `cupola-model`, the name the
// request asks about, and `cupola-key` (RoutingKey).
template <typename Request>
void AddRoutingMetadata(const Request& request, grpc::ClientContext* context) {
  const std::string name = NameOf(request);
  // A name that does not fit cannot exist anyway, and the server says so.
  if (FitsMetadata(name)) context->AddMetadata("cupola-model", name);
  context->AddMetadata("cupola-key", RoutingKey(request));
}

}  // namespace cupola

#endif  // CUPOLA_CLIENT_CPP_ROUTING_METADATA_H_
