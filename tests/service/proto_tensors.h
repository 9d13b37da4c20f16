#ifndef CUPOLA_TESTS_SERVICE_PROTO_TENSORS_H_
#define CUPOLA_TESTS_SERVICE_PROTO_TENSORS_H_

#include <cstring>
#include <string>
#include <vector>

#include "cupola/v1/tensor.pb.h"
#include "storage/array.h"

// Tensors and arrays from values, and back.

namespace cupola::testing {

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(T));
}

template <typename T>
std::vector<T> Values(const std::string& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

template <typename T>
v1::Tensor MakeTensor(v1::DType dtype, std::vector<int64_t> shape,
                      const std::vector<T>& values) {
  v1::Tensor tensor;
  tensor.set_dtype(dtype);
  tensor.mutable_shape()->Assign(shape.begin(), shape.end());
  tensor.set_data(Bytes(values));
  return tensor;
}

template <typename T>
storage::Array MakeArray(storage::DType dtype, std::vector<int64_t> shape,
                         const std::vector<T>& values) {
  return {dtype, std::move(shape), Bytes(values)};
}

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_SERVICE_PROTO_TENSORS_H_
