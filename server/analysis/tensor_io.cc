#include "server/analysis/tensor_io.h"

#include <cstring>

namespace cupola::analysis {

at::ScalarType ToScalarType(storage::DType dtype) {
  switch (dtype) {
    case storage::DType::kFloat32:
      return at::kFloat;
    case storage::DType::kBFloat16:
      return at::kBFloat16;
    case storage::DType::kFloat16:
      return at::kHalf;
    case storage::DType::kFloat64:
      return at::kDouble;
    case storage::DType::kInt32:
    case storage::DType::kUInt32:  // same bits for values that are not negative
      return at::kInt;
    case storage::DType::kInt64:
      return at::kLong;
  }
  return at::kFloat;
}

storage::DType ToDType(at::ScalarType type) {
  switch (type) {
    case at::kBFloat16:
      return storage::DType::kBFloat16;
    case at::kHalf:
      return storage::DType::kFloat16;
    case at::kDouble:
      return storage::DType::kFloat64;
    case at::kInt:
      return storage::DType::kInt32;
    case at::kLong:
      return storage::DType::kInt64;
    default:
      return storage::DType::kFloat32;
  }
}

storage::Array ToArray(const at::Tensor& tensor, storage::DType dtype) {
  at::Tensor host =
      tensor.detach().to(at::kCPU, ToScalarType(dtype)).contiguous();
  storage::Array array;
  array.dtype = dtype;
  array.shape.assign(host.sizes().begin(), host.sizes().end());
  array.bytes.assign(static_cast<const char*>(host.const_data_ptr()),
                     host.nbytes());
  return array;
}

at::Tensor ViewOf(const storage::Array& array) {
  // from_blob wants a mutable pointer; nobody writes through the view.
  return at::from_blob(const_cast<char*>(array.bytes.data()), array.shape,
                       at::TensorOptions().dtype(ToScalarType(array.dtype)));
}

}  // namespace cupola::analysis
