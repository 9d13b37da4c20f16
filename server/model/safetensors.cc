#include "server/model/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/model/json.h"
#include "server/model/read_monitor.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::model {
namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors data is read as it lies");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr int64_t kMaxIndexBytes = 64 << 20;
constexpr uint64_t kChunkBytes = 4 << 20;

struct StoredType {
  const char* name;
  uint64_t bytes;
  std::optional<at::ScalarType> readable;
};

// https://huggingface.co/docs/safetensors: the types of format version 1.
constexpr StoredType kStoredTypes[] = {
    {"F32", 4, at::kFloat},       {"F16", 2, at::kHalf},
    {"BF16", 2, at::kBFloat16},   {"F64", 8, std::nullopt},
    {"I64", 8, std::nullopt},     {"U64", 8, std::nullopt},
    {"I32", 4, std::nullopt},     {"U32", 4, std::nullopt},
    {"I16", 2, std::nullopt},     {"U16", 2, std::nullopt},
    {"I8", 1, std::nullopt},      {"U8", 1, std::nullopt},
    {"BOOL", 1, std::nullopt},    {"F8_E4M3", 1, std::nullopt},
    {"F8_E5M2", 1, std::nullopt},
};

const StoredType* FindType(const std::string& name) {
  for (const StoredType& type : kStoredTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

const char* TypeName(at::ScalarType dtype) {
  for (const StoredType& type : kStoredTypes) {
    if (type.readable == dtype) return type.name;
  }
  return "?";
}

absl::Status Malformed(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

// Reads exactly `size` bytes; a file may have been cut since it was opened.
absl::Status ReadPiece(int descriptor, const std::string& path, void* data,
                       uint64_t size, uint64_t offset) {
  char* to = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = pread(descriptor, to, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      // The disk's trouble, which may pass.
      return absl::UnavailableError(
          absl::StrCat(path, ": read failed: ", std::strerror(errno)));
    }
    if (got == 0) {
      return absl::DataLossError(absl::StrCat(
          path, ": the file has become shorter: no byte at offset ", offset));
    }
    to += got;
    offset += static_cast<uint64_t>(got);
    size -= static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

// The same of any number of bytes: who watches this thread's reading is told of
// each piece and may end it.
absl::Status ReadExactly(int descriptor, const std::string& path, void* data,
                         uint64_t size, uint64_t offset) {
  for (uint64_t done = 0; done < size; done += kChunkBytes) {
    const uint64_t n = std::min<uint64_t>(kChunkBytes, size - done);
    RETURN_IF_ERROR(ReadPiece(descriptor, path, static_cast<char*>(data) + done,
                              n, offset + done));
    RETURN_IF_ERROR(ReadMonitor::Report(static_cast<int64_t>(n)));
  }
  return absl::OkStatus();
}

// JSON parsers keep one of several equal keys; a file with two is refused,
// since nobody can say which tensor is meant.
std::optional<std::string> DuplicateKey(const std::string& text) {
  std::set<std::string> seen;
  std::optional<std::string> duplicate;
  const auto callback = [&](int depth, Json::parse_event_t event,
                            Json& parsed) {
    if (event == Json::parse_event_t::key && depth == 1) {
      auto key = parsed.get<std::string>();
      if (!seen.insert(key).second) duplicate = std::move(key);
      return true;
    }
    return depth <= 1;  // builds nothing below the names
  };
  const Json names = Json::parse(text.begin(), text.end(), callback,
                                 /*allow_exceptions=*/false);
  static_cast<void>(names);
  return duplicate;
}

// A non-negative integer that fits, from JSON.
std::optional<uint64_t> AsSize(const Json& value) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  return std::nullopt;
}

struct ParsedExtent {
  TensorExtent extent;
  const StoredType* type = nullptr;
};

// One entry of the header; `data_bytes` is the size of the data section.
// Offsets in the result are relative to that section.
absl::StatusOr<ParsedExtent> ParseEntry(const Json& entry,
                                        uint64_t data_bytes) {
  if (!entry.is_object() || !entry.contains("dtype") ||
      !entry.contains("shape") || !entry.contains("data_offsets")) {
    return absl::InvalidArgumentError(
        "needs an object with dtype, shape and data_offsets");
  }
  const Json& dtype = entry["dtype"];
  const Json& shape = entry["shape"];
  const Json& offsets = entry["data_offsets"];
  ParsedExtent parsed;
  if (dtype.is_string()) parsed.type = FindType(dtype.get<std::string>());
  if (parsed.type == nullptr) {
    return absl::InvalidArgumentError("unknown dtype");
  }
  if (!shape.is_array() || shape.size() > 16) {
    return absl::InvalidArgumentError(
        "shape must be an array of at most 16 sizes");
  }
  uint64_t bytes = parsed.type->bytes;
  for (const Json& value : shape) {
    const std::optional<uint64_t> size = AsSize(value);
    if (!size.has_value() ||
        *size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
        __builtin_mul_overflow(bytes, *size, &bytes)) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", shape.dump(), " is not possible"));
    }
    parsed.extent.shape.push_back(static_cast<int64_t>(*size));
  }
  if (!offsets.is_array() || offsets.size() != 2 || !AsSize(offsets[0]) ||
      !AsSize(offsets[1])) {
    return absl::InvalidArgumentError("data_offsets must be two sizes");
  }
  const uint64_t begin = *AsSize(offsets[0]);
  const uint64_t end = *AsSize(offsets[1]);
  if (begin > end || end > data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("data_offsets [", begin, ", ", end,
                     "] lie outside the file's ", data_bytes, " data bytes"));
  }
  if (end - begin != bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shape ", shape.dump(), " of ", parsed.type->name, " needs ", bytes,
        " bytes, data_offsets hold ", end - begin));
  }
  parsed.extent.offset = begin;
  parsed.extent.bytes = bytes;
  if (parsed.type->readable) parsed.extent.dtype = *parsed.type->readable;
  return parsed;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SafetensorsSet>> SafetensorsSet::OpenFile(
    const std::string& path) {
  std::shared_ptr<SafetensorsSet> set(new SafetensorsSet);
  RETURN_IF_ERROR(set->AddFile(path));
  return std::shared_ptr<const SafetensorsSet>(std::move(set));
}

absl::StatusOr<std::shared_ptr<const SafetensorsSet>>
SafetensorsSet::OpenFolder(const std::string& folder, const std::string& stem) {
  const std::string single = absl::StrCat(folder, "/", stem, ".safetensors");
  const std::string index_path = absl::StrCat(single, ".index.json");
  if (access(single.c_str(), F_OK) == 0) return OpenFile(single);
  if (access(index_path.c_str(), F_OK) != 0) {
    return absl::NotFoundError(
        absl::StrCat("neither ", single, " nor ", index_path, " exists"));
  }
  ASSIGN_OR_RETURN(const Json index, ReadJsonFile(index_path, kMaxIndexBytes));
  const auto weight_map =
      index.is_object() ? index.find("weight_map") : index.end();
  if (weight_map == index.end() || !weight_map->is_object()) {
    return Malformed(index_path, "needs an object weight_map");
  }
  std::set<std::string> shards;
  for (const auto& [tensor, file] : weight_map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    // A plain name: the index must not lead out of its folder.
    if (name.empty() || name == "." || name == ".." ||
        name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      return Malformed(index_path,
                       absl::StrCat("tensor '", tensor, "' names shard ",
                                    file.dump(), ", not a file of the folder"));
    }
    shards.insert(name);
  }
  std::shared_ptr<SafetensorsSet> set(new SafetensorsSet);
  for (const std::string& shard : shards) {
    RETURN_IF_ERROR(set->AddFile(absl::StrCat(folder, "/", shard)));
  }
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!set->Has(tensor) && set->unreadable_.count(tensor) == 0) {
      return Malformed(index_path, absl::StrCat("no shard holds tensor '",
                                                tensor, "' of the index"));
    }
  }
  return std::shared_ptr<const SafetensorsSet>(std::move(set));
}

SafetensorsSet::~SafetensorsSet() {
  for (int descriptor : descriptors_) close(descriptor);
}

absl::Status SafetensorsSet::AddFile(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    const std::string why = absl::StrCat(path, ": ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(why)
                           : absl::InvalidArgumentError(why);
  }
  const int file = static_cast<int>(paths_.size());
  paths_.push_back(path);
  descriptors_.push_back(descriptor);

  struct stat status;
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    return Malformed(path, "is not a regular file");
  }
  const uint64_t file_bytes = static_cast<uint64_t>(status.st_size);
  uint64_t header_bytes = 0;
  if (file_bytes < sizeof(header_bytes)) {
    return Malformed(path, "is too short for a safetensors file");
  }
  RETURN_IF_ERROR(
      ReadExactly(descriptor, path, &header_bytes, sizeof(header_bytes), 0));
  if (header_bytes > kMaxHeaderBytes ||
      header_bytes > file_bytes - sizeof(header_bytes)) {
    return Malformed(path, absl::StrCat("declares a header of ", header_bytes,
                                        " bytes in a file of ", file_bytes));
  }
  std::string text(header_bytes, '\0');
  RETURN_IF_ERROR(ReadExactly(descriptor, path, text.data(), header_bytes,
                              sizeof(header_bytes)));
  ASSIGN_OR_RETURN(const Json header, ParseJson(text, path));
  if (!header.is_object()) return Malformed(path, "header is not an object");
  if (const auto key = DuplicateKey(text)) {
    return Malformed(path, absl::StrCat("tensor '", *key, "' appears twice"));
  }

  const uint64_t data_start = sizeof(header_bytes) + header_bytes;
  struct Range {
    uint64_t begin, end;
    const std::string* name;
  };
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.get_ref<const Json::object_t&>()) {
    if (name == "__metadata__") continue;
    auto parsed = ParseEntry(entry, file_bytes - data_start);
    if (!parsed.ok()) {
      return Malformed(path, absl::StrCat("tensor '", name,
                                          "': ", parsed.status().message()));
    }
    TensorExtent& extent = parsed->extent;
    if (extent.bytes > 0) {
      ranges.push_back({extent.offset, extent.offset + extent.bytes, &name});
    }
    extent.file = file;
    extent.offset += data_start;
    const bool fresh =
        parsed->type->readable
            ? unreadable_.count(name) == 0 &&
                  tensors_.emplace(name, std::move(extent)).second
            : tensors_.count(name) == 0 &&
                  unreadable_.emplace(name, parsed->type->name).second;
    if (!fresh) {
      return Malformed(
          path, absl::StrCat("tensor '", name, "' is in another shard too"));
    }
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin < ranges[i - 1].end) {
      return Malformed(path,
                       absl::StrCat("tensors '", *ranges[i - 1].name, "' and '",
                                    *ranges[i].name, "' overlap"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<const TensorExtent*> SafetensorsSet::Find(
    const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it != tensors_.end()) return &it->second;
  const auto other = unreadable_.find(name);
  if (other != unreadable_.end()) {
    return absl::NotFoundError(absl::StrCat("tensor '", name, "' is stored as ",
                                            other->second,
                                            "; F32, F16 and BF16 are read"));
  }
  return absl::NotFoundError(
      absl::StrCat("no tensor '", name, "' in ", absl::StrJoin(paths_, ", ")));
}

absl::StatusOr<at::Tensor> SafetensorsSet::Read(const std::string& name) const {
  ASSIGN_OR_RETURN(const TensorExtent* extent, Find(name));
  return Read(name, extent->dtype);
}

absl::StatusOr<at::Tensor> SafetensorsSet::Read(const std::string& name,
                                                at::ScalarType dtype) const {
  ASSIGN_OR_RETURN(const TensorExtent* extent, Find(name));
  const int descriptor = descriptors_[extent->file];
  const std::string& path = paths_[extent->file];
  return CatchTorch(
      absl::StrCat("reading tensor '", name, "' of ", path),
      [&]() -> absl::StatusOr<at::Tensor> {
        at::Tensor result =
            at::empty(extent->shape, at::TensorOptions().dtype(dtype));
        if (dtype == extent->dtype) {
          RETURN_IF_ERROR(ReadExactly(descriptor, path, result.data_ptr(),
                                      extent->bytes, extent->offset));
          return result;
        }
        const int64_t width =
            static_cast<int64_t>(c10::elementSize(extent->dtype));
        const int64_t count = result.numel();
        const int64_t step = static_cast<int64_t>(kChunkBytes) / width;
        at::Tensor chunk = at::empty({std::min(step, count)},
                                     at::TensorOptions().dtype(extent->dtype));
        at::Tensor flat = result.view({-1});
        for (int64_t done = 0; done < count; done += step) {
          const int64_t n = std::min(step, count - done);
          RETURN_IF_ERROR(ReadExactly(
              descriptor, path, chunk.data_ptr(),
              static_cast<uint64_t>(n * width),
              extent->offset + static_cast<uint64_t>(done * width)));
          flat.narrow(0, done, n).copy_(chunk.narrow(0, 0, n));
        }
        return result;
      });
}

absl::StatusOr<storage::Digest> SafetensorsSet::ContentDigest() const {
  storage::Hasher hasher("safetensors/1");
  std::vector<char> buffer(kChunkBytes);
  for (const auto& [name, extent] : tensors_) {
    hasher.AddBytes(name)
        .AddBytes(TypeName(extent.dtype))
        .AddInts(extent.shape.data(), extent.shape.size())
        .BeginBytes(extent.bytes);
    for (uint64_t done = 0; done < extent.bytes; done += kChunkBytes) {
      const uint64_t n = std::min<uint64_t>(kChunkBytes, extent.bytes - done);
      RETURN_IF_ERROR(ReadExactly(descriptors_[extent.file],
                                  paths_[extent.file], buffer.data(), n,
                                  extent.offset + done));
      hasher.AddPiece(buffer.data(), n);
    }
  }
  return hasher.Finish();
}

}  // namespace cupola::model
