#ifndef CUPOLA_SERVER_MODEL_SAFETENSORS_H_
#define CUPOLA_SERVER_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/digest.h"

namespace cupola::model {

// Where one tensor lies. Validated: the extent is inside its file, its size is
// product(shape) * size(dtype), and no two tensors of a file overlap.
struct TensorExtent {
  at::ScalarType dtype = at::kFloat;  // float, half or bfloat16 only
  std::vector<int64_t> shape;
  int file = 0;         // index into the set's files
  uint64_t offset = 0;  // from the file's start
  uint64_t bytes = 0;
};

// The tensors of one safetensors file, or of a sharded set with its index.
// Reads with pread and checks every length, because a file cut short under a
// memory map would kill the process. Tensors of other dtypes (int masks) are
// listed in no map: asking for one is NOT_FOUND. Immutable; any thread may
// call.
class SafetensorsSet {
 public:
  // INVALID_ARGUMENT: malformed header, extent outside the file, overlap, shape
  // overflow, header above 100 MB, with file and tensor named. NOT_FOUND.
  static absl::StatusOr<std::shared_ptr<const SafetensorsSet>> OpenFile(
      const std::string& path);
  // FOLDER/STEM.safetensors, or FOLDER/STEM.safetensors.index.json with the
  // shards it names (inside FOLDER only).
  static absl::StatusOr<std::shared_ptr<const SafetensorsSet>> OpenFolder(
      const std::string& folder, const std::string& stem = "model");
  ~SafetensorsSet();

  const std::map<std::string, TensorExtent>& tensors() const {
    return tensors_;
  }
  bool Has(const std::string& name) const { return tensors_.count(name) > 0; }
  // The extent, owned by this object, or NOT_FOUND; of a tensor of another
  // dtype the message says which.
  absl::StatusOr<const TensorExtent*> Find(const std::string& name) const;

  // The tensor on the CPU in its stored dtype, or converted to `dtype` (chunk
  // by chunk, so that only the result is held). NOT_FOUND, or DATA_LOSS when
  // the file has become shorter.
  absl::StatusOr<at::Tensor> Read(const std::string& name) const;
  absl::StatusOr<at::Tensor> Read(const std::string& name,
                                  at::ScalarType dtype) const;

  // SHA-256 over every listed tensor's name, dtype, shape and bytes, in name
  // order: the same for a sharded and an unsharded copy.
  absl::StatusOr<storage::Digest> ContentDigest() const;

 private:
  SafetensorsSet() = default;
  absl::Status AddFile(const std::string& path);
  std::vector<std::string> paths_;
  std::vector<int> descriptors_;
  std::map<std::string, TensorExtent> tensors_;
  std::map<std::string, std::string> unreadable_;  // name -> stored dtype
};

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_SAFETENSORS_H_
