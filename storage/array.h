#ifndef CUPOLA_STORAGE_ARRAY_H_
#define CUPOLA_STORAGE_ARRAY_H_

#include <cstdint>
#include <optional>
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

// Bytes per element; 0 for a value that is none of the above.
int64_t SizeOf(DType dtype);

// product(shape) * SizeOf(dtype); 1 element for an empty shape (a scalar), 0
// bytes where any dimension is 0. Nothing for an unknown dtype, a negative
// dimension or a product that exceeds int64_t.
std::optional<int64_t> ByteSize(DType dtype, const std::vector<int64_t>& shape);

// A dense array on the host: little-endian, row-major.
// Invariant: bytes.size() == product(shape) * SizeOf(dtype).
struct Array {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  std::string bytes;

  friend bool operator==(const Array&, const Array&) = default;
};

// Whether the invariant holds.
bool IsValid(const Array& array);

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_ARRAY_H_
