#include "storage/state_file.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "storage/file_error.h"

namespace cupola::storage {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the format is little-endian and written without swapping");

constexpr char kMagic[8] = {'C', 'U', 'P', 'S', 'T', 'A', 'T', 'E'};
constexpr uint32_t kFormat = 1;
constexpr uint32_t kMaxKindBytes = 256;
constexpr uint64_t kTrailerBytes = 2 * sizeof(uint64_t);
constexpr size_t kBlockBytes = size_t{1} << 20;

}  // namespace

void FreeHash::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

StateWriter::StateWriter(std::string path, Meter meter)
    : path_(std::move(path)),
      part_(absl::StrCat(path_, ".part")),
      meter_(std::move(meter)),
      hash_(XXH3_createState()) {
  XXH3_64bits_reset(hash_.get());
}

StateWriter::~StateWriter() {
  if (file_ == nullptr) return;
  file_.reset();
  unlink(part_.c_str());
}

absl::Status StateWriter::Failure(absl::string_view doing) const {
  return FileError(doing, part_);
}

absl::StatusOr<std::unique_ptr<StateWriter>> StateWriter::Create(
    const std::string& path, const StateHeader& header, Meter meter) {
  auto writer = absl::WrapUnique(new StateWriter(path, std::move(meter)));
  const int fd = open(writer->part_.c_str(),
                      O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return writer->Failure("create");
  writer->file_.reset(fdopen(fd, "wb"));
  std::setvbuf(writer->file_.get(), nullptr, _IOFBF, kBlockBytes);
  std::string bytes(kMagic, sizeof(kMagic));
  const auto add = [&bytes](const auto& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  add(kFormat);
  add(static_cast<uint32_t>(header.kind.size()));
  bytes += header.kind;
  add(header.version);
  add(header.identity);
  add(header.chunks);
  if (absl::Status status = writer->Write(bytes.data(), bytes.size());
      !status.ok()) {
    return status;
  }
  return writer;
}

absl::Status StateWriter::Write(const void* data, size_t bytes) {
  if (meter_ != nullptr) {
    if (absl::Status s = meter_(static_cast<int64_t>(bytes)); !s.ok()) return s;
  }
  XXH3_64bits_update(hash_.get(), data, bytes);
  if (std::fwrite(data, 1, bytes, file_.get()) != bytes) {
    return Failure("write");
  }
  return absl::OkStatus();
}

absl::Status StateWriter::Append(const void* data, size_t bytes) {
  body_bytes_ += bytes;
  return Write(data, bytes);
}

absl::Status StateWriter::Commit() {
  if (absl::Status status = Write(&body_bytes_, sizeof(body_bytes_));
      !status.ok()) {
    return status;
  }
  const uint64_t checksum = XXH3_64bits_digest(hash_.get());
  if (absl::Status status = Write(&checksum, sizeof(checksum)); !status.ok()) {
    return status;
  }
  if (std::fflush(file_.get()) != 0) return Failure("write");
  if (fsync(fileno(file_.get())) != 0) return Failure("sync");
  if (std::rename(part_.c_str(), path_.c_str()) != 0) return Failure("rename");
  file_.reset();
  SyncDirectory(path_);
  return absl::OkStatus();
}

StateReader::StateReader(std::string path) : path_(std::move(path)) {}

absl::Status StateReader::Damaged(absl::string_view why) const {
  return absl::DataLossError(absl::StrCat("the state ", path_, " ", why));
}

absl::StatusOr<std::unique_ptr<StateReader>> StateReader::Open(
    const std::string& path) {
  auto reader = absl::WrapUnique(new StateReader(path));
  reader->file_.reset(std::fopen(path.c_str(), "rbe"));
  if (reader->file_ == nullptr) {
    const std::string message =
        absl::StrCat("cannot open ", path, ": ", std::strerror(errno));
    if (errno == ENOENT) return absl::NotFoundError(message);
    return absl::InternalError(message);
  }
  if (absl::Status status = reader->ReadHeader(); !status.ok()) return status;
  if (absl::Status status = reader->Verify(); !status.ok()) return status;
  return reader;
}

absl::Status StateReader::ReadRaw(void* data, size_t bytes) {
  if (std::fread(data, 1, bytes, file_.get()) != bytes) {
    return Damaged("ends too early");
  }
  return absl::OkStatus();
}

absl::Status StateReader::ReadHeader() {
  char magic[sizeof(kMagic)];
  uint32_t format = 0, length = 0;
  if (absl::Status s = ReadRaw(magic, sizeof(magic)); !s.ok()) return s;
  if (std::memcmp(magic, kMagic, sizeof(magic)) != 0) {
    return Damaged("does not begin as one");
  }
  if (absl::Status s = ReadRaw(&format, sizeof(format)); !s.ok()) return s;
  if (format != kFormat) {
    return Damaged(absl::StrCat("has format ", format, "; known: ", kFormat));
  }
  if (absl::Status s = ReadRaw(&length, sizeof(length)); !s.ok()) return s;
  if (length > kMaxKindBytes) return Damaged("has no kind");
  header_.kind.resize(length);
  if (absl::Status s = ReadRaw(header_.kind.data(), length); !s.ok()) return s;
  if (absl::Status s = ReadRaw(&header_.version, sizeof(header_.version));
      !s.ok()) {
    return s;
  }
  if (absl::Status s = ReadRaw(&header_.identity, sizeof(header_.identity));
      !s.ok()) {
    return s;
  }
  return ReadRaw(&header_.chunks, sizeof(header_.chunks));
}

absl::Status StateReader::Verify() {
  body_begin_ = std::ftell(file_.get());
  std::fseek(file_.get(), 0, SEEK_END);
  const uint64_t size = std::ftell(file_.get());
  if (size < body_begin_ + kTrailerBytes) return Damaged("ends too early");
  left_ = size - body_begin_ - kTrailerBytes;
  std::rewind(file_.get());
  const std::unique_ptr<XXH3_state_t, FreeHash> hash(XXH3_createState());
  XXH3_64bits_reset(hash.get());
  std::vector<char> block(kBlockBytes);
  for (uint64_t at = 0, end = size - sizeof(uint64_t); at < end;) {
    const size_t some = std::min<uint64_t>(kBlockBytes, end - at);
    if (absl::Status s = ReadRaw(block.data(), some); !s.ok()) return s;
    XXH3_64bits_update(hash.get(), block.data(), some);
    at += some;
  }
  uint64_t trailer[2];
  std::fseek(file_.get(), -static_cast<int64_t>(kTrailerBytes), SEEK_END);
  if (absl::Status s = ReadRaw(trailer, sizeof(trailer)); !s.ok()) return s;
  if (trailer[0] != left_ || trailer[1] != XXH3_64bits_digest(hash.get())) {
    return Damaged("does not have its checksum");
  }
  std::fseek(file_.get(), static_cast<int64_t>(body_begin_), SEEK_SET);
  return absl::OkStatus();
}

absl::Status StateReader::Read(void* data, size_t bytes) {
  if (bytes > left_) return Damaged("holds less than it should");
  left_ -= bytes;
  return ReadRaw(data, bytes);
}

}  // namespace cupola::storage
