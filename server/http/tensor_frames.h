#ifndef CUPOLA_SERVER_HTTP_TENSOR_FRAMES_H_
#define CUPOLA_SERVER_HTTP_TENSOR_FRAMES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "server/http/byte_budget.h"

// How an answer's message becomes the body of an HTTP answer. What it takes
// meanwhile is added to `share`. RESOURCE_EXHAUSTED: a body of more than `most`
// bytes, or the share's refusal.

namespace cupola::http {

// `message` in Protobuf's JSON mapping, every plain field printed.
absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message,
                                   int64_t most, ByteBudget::Share* share);

// An answer with its tensors as raw bytes behind it:
//
//   8 bytes   N, little-endian
//   N bytes   JSON, filled up with blanks so that 8 + N is a multiple of 8:
//             {"message": the answer, its tensors without data,
//              "tensors": [{"path": "features.indptr", "dtype": "INT64",
//                           "shape": [9], "offset": 0, "bytes": 72}, ...]}
//   the rest  each tensor at its `offset` from here, a multiple of 8:
//             little-endian, row-major
//
// so that a browser reads new Float32Array(body, 8 + N + offset, count).
// Paths are those of the .proto files, with [i] in repeated fields. Takes the
// bytes out of `message`.
absl::StatusOr<std::string> ToFrames(google::protobuf::Message* message,
                                     int64_t most, ByteBudget::Share* share);

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_TENSOR_FRAMES_H_
