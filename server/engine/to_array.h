#ifndef CUPOLA_SERVER_ENGINE_TO_ARRAY_H_
#define CUPOLA_SERVER_ENGINE_TO_ARRAY_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "storage/array.h"

namespace cupola::engine {

// Values as an array. REQUIRES: T is what `dtype` says, and the shape's product
// the number of values.
template <typename T>
storage::Array ToArray(storage::DType dtype, std::vector<int64_t> shape,
                       const std::vector<T>& values) {
  storage::Array array{dtype, std::move(shape), {}};
  array.bytes.assign(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(T));
  return array;
}

template <typename T>
storage::Array ToVector(storage::DType dtype, const std::vector<T>& values) {
  return ToArray(dtype, {static_cast<int64_t>(values.size())}, values);
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_TO_ARRAY_H_
