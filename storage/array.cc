#include "storage/array.h"

#include <algorithm>

namespace cupola::storage {

int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
    case DType::kFloat16:
      return 2;
    case DType::kFloat32:
    case DType::kInt32:
    case DType::kUInt32:
      return 4;
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
  }
  return 0;
}

std::optional<int64_t> ByteSize(DType dtype,
                                const std::vector<int64_t>& shape) {
  int64_t bytes = SizeOf(dtype);
  if (bytes == 0) return std::nullopt;
  if (std::any_of(shape.begin(), shape.end(),
                  [](int64_t size) { return size < 0; })) {
    return std::nullopt;
  }
  // Before the product, so that the answer does not depend on the order of the
  // dimensions: {2^62, 2^62, 0} is as empty as {0, 2^62, 2^62}.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  for (int64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

bool IsValid(const Array& array) {
  const std::optional<int64_t> bytes = ByteSize(array.dtype, array.shape);
  return bytes.has_value() &&
         static_cast<uint64_t>(*bytes) == array.bytes.size();
}

}  // namespace cupola::storage
