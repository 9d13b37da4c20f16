#ifndef CUPOLA_CLIENT_CPP_VISIT_TENSORS_H_
#define CUPOLA_CLIENT_CPP_VISIT_TENSORS_H_

#include <functional>
#include <string>

#include "cupola/v1/tensor.pb.h"
#include "google/protobuf/message.h"

namespace cupola {

// Every tensor that is set in `message`, in field order, depth first: the order
// in which the chunks of a streamed answer fill them. `path` is that of the
// .proto files, with [i] in repeated fields: "hooks[1].prompts[0]".
void VisitTensors(
    google::protobuf::Message* message,
    const std::function<void(v1::Tensor*, const std::string& path)>& visit);

}  // namespace cupola

#endif  // CUPOLA_CLIENT_CPP_VISIT_TENSORS_H_
