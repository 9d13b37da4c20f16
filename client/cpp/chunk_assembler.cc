#include "client/cpp/chunk_assembler.h"

#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cpp/visit_tensors.h"

namespace cupola {
namespace {

using google::protobuf::Message;

constexpr int64_t kTooMany = std::numeric_limits<int64_t>::max();

int64_t ElementBytes(v1::DType dtype) {
  switch (dtype) {
    case v1::BFLOAT16:
    case v1::FLOAT16:
      return 2;
    case v1::FLOAT32:
    case v1::INT32:
    case v1::UINT32:
      return 4;
    case v1::FLOAT64:
    case v1::INT64:
      return 8;
    default:
      return 0;
  }
}

// kTooMany when the shape is negative or does not fit.
int64_t ExpectedBytes(const v1::Tensor& tensor) {
  int64_t bytes = ElementBytes(tensor.dtype());
  for (const int64_t extent : tensor.shape()) {
    if (extent < 0) return kTooMany;
    if (extent > 0 && bytes > kTooMany / extent) return kTooMany;
    bytes *= extent;
  }
  return bytes;
}

std::vector<v1::Tensor*> TensorsOf(Message* message) {
  std::vector<v1::Tensor*> tensors;
  VisitTensors(message, [&tensors](v1::Tensor* tensor, const std::string&) {
    tensors.push_back(tensor);
  });
  return tensors;
}

}  // namespace

absl::StatusOr<ChunkAssembler> ChunkAssembler::Create(Message* header,
                                                      int64_t chunked_bytes) {
  ChunkAssembler assembler;
  if (chunked_bytes == 0) return assembler;
  int64_t left = chunked_bytes;
  for (v1::Tensor* tensor : TensorsOf(header)) {
    if (!tensor->data().empty()) continue;
    const int64_t bytes = ExpectedBytes(*tensor);
    if (bytes > left) {
      return absl::DataLossError(
          absl::StrCat("the answer announces ", chunked_bytes,
                       " bytes, but its tensors need more"));
    }
    left -= bytes;
    if (bytes > 0) {
      assembler.slots_.push_back({tensor, static_cast<size_t>(bytes)});
    }
  }
  if (left != 0) {
    return absl::DataLossError(
        absl::StrCat("the answer announces ", chunked_bytes,
                     " bytes, but its tensors need ", chunked_bytes - left));
  }
  return assembler;
}

int64_t ChunkAssembler::MissingBytes(Message* header) {
  int64_t missing = 0;
  for (const v1::Tensor* tensor : TensorsOf(header)) {
    if (!tensor->data().empty()) continue;
    const int64_t bytes = ExpectedBytes(*tensor);
    if (bytes > kTooMany - missing) return kTooMany;
    missing += bytes;
  }
  return missing;
}

absl::Status ChunkAssembler::Append(absl::string_view chunk) {
  while (!chunk.empty()) {
    if (next_ == slots_.size()) {
      return absl::DataLossError(absl::StrCat("the answer has ", chunk.size(),
                                              " bytes more than it announced"));
    }
    Slot& slot = slots_[next_];
    std::string* data = slot.tensor->mutable_data();
    if (data->empty()) data->reserve(slot.bytes);
    const size_t take = std::min(chunk.size(), slot.bytes - data->size());
    data->append(chunk.data(), take);
    chunk.remove_prefix(take);
    if (data->size() == slot.bytes) ++next_;
  }
  return absl::OkStatus();
}

absl::Status ChunkAssembler::Finish() const {
  if (next_ == slots_.size()) return absl::OkStatus();
  return absl::DataLossError("the answer ended before its last chunk");
}

}  // namespace cupola
