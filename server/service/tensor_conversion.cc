#include "server/service/tensor_conversion.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace cupola::service {
namespace {

// The two enums are numbered alike (storage/array.h).
static_assert(v1::FLOAT32 == static_cast<int>(storage::DType::kFloat32));
static_assert(v1::BFLOAT16 == static_cast<int>(storage::DType::kBFloat16));
static_assert(v1::FLOAT16 == static_cast<int>(storage::DType::kFloat16));
static_assert(v1::FLOAT64 == static_cast<int>(storage::DType::kFloat64));
static_assert(v1::INT32 == static_cast<int>(storage::DType::kInt32));
static_assert(v1::UINT32 == static_cast<int>(storage::DType::kUInt32));
static_assert(v1::INT64 == static_cast<int>(storage::DType::kInt64));

std::string ShapeText(const v1::Tensor& tensor) {
  constexpr int kShown = 8;
  if (tensor.shape_size() > kShown) {
    return absl::StrCat("[", tensor.shape_size(), " dimensions]");
  }
  return absl::StrCat("[", absl::StrJoin(tensor.shape(), ", "), "]");
}

// The bytes that shape and dtype ask for; -1 where they do not fit an int64.
int64_t BytesOf(const v1::Tensor& tensor, storage::DType dtype) {
  int64_t bytes = storage::SizeOf(dtype);
  for (const int64_t extent : tensor.shape()) {
    if (extent == 0) return 0;
    if (bytes > std::numeric_limits<int64_t>::max() / extent) return -1;
    bytes *= extent;
  }
  return bytes;
}

}  // namespace

std::string DTypeName(storage::DType dtype) {
  return v1::DType_Name(static_cast<v1::DType>(dtype));
}

absl::StatusOr<storage::Array> TakeArray(v1::Tensor* tensor,
                                         absl::string_view field,
                                         storage::DType dtype, int rank) {
  if (static_cast<int>(tensor->dtype()) != static_cast<int>(dtype)) {
    const std::string& given = v1::DType_Name(tensor->dtype());
    return absl::InvalidArgumentError(absl::StrCat(
        field, ".dtype is ",
        given.empty() ? absl::StrCat(static_cast<int>(tensor->dtype())) : given,
        "; accepted: ", DTypeName(dtype)));
  }
  if (tensor->shape_size() != rank) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, ".shape is ", ShapeText(*tensor), "; accepted: ", rank,
        rank == 1 ? " dimension" : " dimensions"));
  }
  for (const int64_t extent : tensor->shape()) {
    if (extent < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ".shape is ", ShapeText(*tensor),
                       "; accepted: dimensions >= 0"));
    }
  }
  const int64_t expected = BytesOf(*tensor, dtype);
  const int64_t given = static_cast<int64_t>(tensor->data().size());
  if (expected != given) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ".data has ", given, " bytes; shape ",
                     ShapeText(*tensor), " of ", DTypeName(dtype), " needs ",
                     expected < 0 ? "more than an int64 can count"
                                  : absl::StrCat(expected)));
  }
  storage::Array array;
  array.dtype = dtype;
  array.shape.assign(tensor->shape().begin(), tensor->shape().end());
  array.bytes = std::move(*tensor->mutable_data());
  return array;
}

absl::Status CheckFinite(const storage::Array& array, absl::string_view field) {
  const size_t count = array.bytes.size() / sizeof(float);
  for (size_t i = 0; i < count; ++i) {
    float value;
    std::memcpy(&value, array.bytes.data() + i * sizeof value, sizeof value);
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, " holds ", value, " at element ", i, "; accepted: finite"));
    }
  }
  return absl::OkStatus();
}

void TensorCollector::Add(storage::Array array, v1::Tensor* tensor) {
  // Never made, as all of a dry run's: the tensor stays unset.
  if (array.shape.empty() && array.bytes.empty()) return;
  tensor->set_dtype(static_cast<v1::DType>(array.dtype));
  tensor->mutable_shape()->Assign(array.shape.begin(), array.shape.end());
  bytes_ += static_cast<int64_t>(array.bytes.size());
  tensors_.emplace_back(tensor, std::move(array.bytes));
}

std::vector<std::string> TensorCollector::Finish() {
  std::vector<std::string> pieces;
  for (auto& [tensor, bytes] : tensors_) {
    if (bytes_ <= kInlineAnswerBytes) {
      tensor->set_data(std::move(bytes));
    } else {
      pieces.push_back(std::move(bytes));
    }
  }
  return pieces;
}

}  // namespace cupola::service
