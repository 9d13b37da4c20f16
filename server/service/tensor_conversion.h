#ifndef CUPOLA_SERVER_SERVICE_TENSOR_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_TENSOR_CONVERSION_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cupola/v1/tensor.pb.h"
#include "server/engine/requests.h"
#include "storage/array.h"

// cupola.v1.Tensor <-> storage::Array, without copying the data.

namespace cupola::service {

// An answer's tensors up to this many bytes travel in the first message; more
// than this, and all of them follow in chunks.
inline constexpr int64_t kInlineAnswerBytes = 1 << 20;

// Takes a tensor that must have `dtype` and `rank` dimensions and whose data
// must be exactly as long as both say. INVALID_ARGUMENT names `field`, what it
// holds and what is accepted. The tensor's data is moved out.
absl::StatusOr<storage::Array> TakeArray(v1::Tensor* tensor,
                                         absl::string_view field,
                                         storage::DType dtype, int rank);

// INVALID_ARGUMENT naming the first element of a FLOAT32 array that is NaN or
// infinite.
absl::Status CheckFinite(const storage::Array& array, absl::string_view field);

// "FLOAT32", ...
std::string DTypeName(storage::DType dtype);

// Gathers the tensors of one streamed answer. Add them in the field order of
// the header message (depth first): the client fills its empty tensors in that
// order.
class TensorCollector {
 public:
  // Fills dtype and shape of `tensor`, which outlives Finish.
  void Add(storage::Array array, v1::Tensor* tensor);

  // Puts small data into the tensors and returns nothing; otherwise leaves them
  // empty and returns the bytes that follow, in order.
  std::vector<std::string> Finish();

 private:
  std::vector<std::pair<v1::Tensor*, std::string>> tensors_;
  int64_t bytes_ = 0;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_TENSOR_CONVERSION_H_
