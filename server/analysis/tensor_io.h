#ifndef CUPOLA_SERVER_ANALYSIS_TENSOR_IO_H_
#define CUPOLA_SERVER_ANALYSIS_TENSOR_IO_H_

#include "ATen/ATen.h"
#include "storage/array.h"

namespace cupola::analysis {

at::ScalarType ToScalarType(storage::DType dtype);
storage::DType ToDType(at::ScalarType type);  // float types, int32, int64

// A copy of `tensor` on the host, converted to `dtype`. UINT32 takes an int32
// tensor whose values are not negative.
storage::Array ToArray(const at::Tensor& tensor, storage::DType dtype);

// A view of the array's bytes: valid while `array` lives and is not changed.
at::Tensor ViewOf(const storage::Array& array);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_TENSOR_IO_H_
