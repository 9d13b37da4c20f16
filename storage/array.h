#ifndef CUPOLA_STORAGE_ARRAY_H_
#define CUPOLA_STORAGE_ARRAY_H_

#include <cstdint>
#include <string>
#include <vector>

namespace cupola::storage {

// Numbered as in the record format and in cupola.v1.DType: never renumber.
enum class DType : uint8_t {
  kFloat32 = 1,
  kBFloat16 = 2,
  kFloat16 = 3,
  kFloat64 = 4,
  kInt32 = 5,
  kUInt32 = 6,
  kInt64 = 7,
};

int64_t SizeOf(DType dtype);  // bytes per element

// A dense array on the host: little-endian, row-major.
// Invariant: bytes.size() == product(shape) * SizeOf(dtype).
struct Array {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  std::string bytes;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_ARRAY_H_
