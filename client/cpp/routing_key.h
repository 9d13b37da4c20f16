#ifndef CUPOLA_CLIENT_CPP_ROUTING_KEY_H_
#define CUPOLA_CLIENT_CPP_ROUTING_KEY_H_

#include <string>

#include "google/protobuf/message.h"

namespace cupola {

// 16 hexadecimal digits that equal requests share: FNV-1a (64 bits) of the
// message's deterministic serialization. Only for routing: a collision sends
// two requests to the same server.
std::string RoutingKey(const google::protobuf::Message& request);

}  // namespace cupola

#endif  // CUPOLA_CLIENT_CPP_ROUTING_KEY_H_
