#include "storage/chunk_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "storage/file_error.h"

namespace cupola::storage {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the format is little-endian and written without swapping");

constexpr char kMagic[8] = {'C', 'U', 'P', 'C', 'H', 'U', 'N', 'K'};
constexpr uint32_t kFormat = 1;

struct FileHeader {
  char magic[8];
  uint32_t format, about_bytes;
  uint64_t checksum;  // of about
};
struct ChunkHeader {
  int64_t number, items, bytes;
  uint64_t checksum;  // of the payload
  uint64_t of_these;  // of the above
};
static_assert(sizeof(FileHeader) == 24 && sizeof(ChunkHeader) == 40);

uint64_t HeaderChecksum(const ChunkHeader& header) {
  return XXH3_64bits(&header, offsetof(ChunkHeader, of_these));
}

bool ReadAt(int fd, int64_t offset, void* to, size_t bytes) {
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t some = pread(fd, at, bytes, offset);
    if (some < 0 && errno == EINTR) continue;
    if (some <= 0) return false;
    at += some;
    offset += some;
    bytes -= some;
  }
  return true;
}

bool WriteAt(int fd, int64_t offset, const void* from, size_t bytes) {
  const auto* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t some = pwrite(fd, at, bytes, offset);
    if (some < 0 && errno == EINTR) continue;
    if (some < 0) return false;
    at += some;
    offset += some;
    bytes -= some;
  }
  return true;
}

absl::Status Damaged(const std::string& path, absl::string_view why) {
  return absl::DataLossError(absl::StrCat("the file ", path, " ", why));
}

}  // namespace

ChunkFile::ChunkFile(std::string path, int fd, std::string about)
    : path_(std::move(path)), fd_(fd), about_(std::move(about)) {}

ChunkFile::~ChunkFile() { close(fd_); }

absl::StatusOr<std::unique_ptr<ChunkFile>> ChunkFile::Create(
    const std::string& path, absl::string_view about) {
  if (about.size() > kMaxAboutBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("about ", path, ": ", about.size(),
                     " bytes; accepted: up to ", kMaxAboutBytes));
  }
  FileHeader header{{},
                    kFormat,
                    static_cast<uint32_t>(about.size()),
                    XXH3_64bits(about.data(), about.size())};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  // It has its name once it is one.
  const std::string part = absl::StrCat(path, ".part");
  const int fd =
      open(part.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return FileError("create", part);
  auto file = absl::WrapUnique(new ChunkFile(path, fd, std::string(about)));
  absl::Status status;
  if (!WriteAt(fd, 0, &header, sizeof(header)) ||
      !WriteAt(fd, sizeof(header), about.data(), about.size()) ||
      fsync(fd) != 0) {
    status = FileError("write", part);
  } else if (link(part.c_str(), path.c_str()) != 0) {
    status = errno == EEXIST
                 ? absl::AlreadyExistsError(absl::StrCat(path, " is there"))
                 : FileError("name", path);
  }
  unlink(part.c_str());
  if (!status.ok()) return status;
  SyncDirectory(path);
  absl::MutexLock lock(&file->mu_);
  file->end_ = static_cast<int64_t>(sizeof(header) + about.size());
  return file;
}

absl::StatusOr<std::unique_ptr<ChunkFile>> ChunkFile::Open(
    const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    if (errno != ENOENT) return FileError("open", path);
    return absl::NotFoundError(absl::StrCat(path, " is not there"));
  }
  auto file = absl::WrapUnique(new ChunkFile(path, fd, ""));
  FileHeader header{};
  if (!ReadAt(fd, 0, &header, sizeof(header)) ||
      std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0 ||
      header.format != kFormat || header.about_bytes > kMaxAboutBytes) {
    return Damaged(path, "is none of chunks, or of another version");
  }
  std::string& about = file->about_;
  about.resize(header.about_bytes);
  if (!ReadAt(fd, sizeof(header), about.data(), about.size()) ||
      XXH3_64bits(about.data(), about.size()) != header.checksum) {
    return Damaged(path, "does not say what it is");
  }
  absl::MutexLock lock(&file->mu_);
  file->end_ = static_cast<int64_t>(sizeof(header) + file->about_.size());
  if (absl::Status status = file->ReadIndex(); !status.ok()) return status;
  return file;
}

absl::Status ChunkFile::ReadIndex() {
  struct stat told {};
  if (fstat(fd_, &told) != 0) return FileError("look at", path_);
  constexpr auto kHeader = static_cast<int64_t>(sizeof(ChunkHeader));
  while (told.st_size - end_ >= kHeader) {
    ChunkHeader header{};
    if (!ReadAt(fd_, end_, &header, sizeof(header))) {
      return FileError("read", path_);
    }
    // Headers are written after their payloads: one of zeros never was.
    constexpr ChunkHeader kUnwritten{};
    if (std::memcmp(&header, &kUnwritten, sizeof(header)) == 0) break;
    // Good chunks may lie behind: nothing is cut off.
    if (header.of_these != HeaderChecksum(header) || header.number < 0 ||
        header.number >= kMaxChunks || header.items < 0 || header.bytes < 0) {
      return Damaged(path_, absl::StrCat("has no chunk at ", end_));
    }
    const int64_t payload = end_ + kHeader;
    if (header.bytes > told.st_size - payload) break;
    Note(header.number, {payload, header.items, header.bytes, header.checksum});
    end_ = payload + header.bytes;
  }
  if (end_ == told.st_size) return absl::OkStatus();
  return ftruncate(fd_, end_) == 0 ? absl::OkStatus()
                                   : FileError("shorten", path_);
}

void ChunkFile::Note(int64_t number, const Place& place) {
  if (number >= static_cast<int64_t>(places_.size())) {
    places_.resize(number + 1);
  }
  chunks_ += places_[number].offset == 0;
  places_[number] = place;
}

absl::Status ChunkFile::Append(int64_t number, int64_t items,
                               absl::string_view payload) {
  const auto bytes = static_cast<int64_t>(payload.size());
  if (number < 0 || number >= kMaxChunks || items < 0 || bytes > kMaxPayload) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk ", number, " of ", bytes, " bytes; accepted: 0 to ",
                     kMaxChunks - 1, ", of up to ", kMaxPayload));
  }
  ChunkHeader header{number, items, bytes,
                     XXH3_64bits(payload.data(), payload.size()), 0};
  header.of_these = HeaderChecksum(header);
  int64_t end = 0;
  {
    absl::MutexLock lock(&mu_);
    end = end_;
  }
  const int64_t at = end + static_cast<int64_t>(sizeof(header));
  // The header last: one without its payload would be taken for damage.
  if (!WriteAt(fd_, at, payload.data(), payload.size()) ||
      !WriteAt(fd_, end, &header, sizeof(header))) {
    const absl::Status status = FileError("write", path_);
    // Where this fails, too, it is cut off when the file is next opened.
    static_cast<void>(ftruncate(fd_, end) == 0);
    return status;
  }
  absl::MutexLock lock(&mu_);
  Note(number, {at, items, bytes, header.checksum});
  end_ = at + bytes;
  return absl::OkStatus();
}

absl::Status ChunkFile::Sync() {
  return fdatasync(fd_) == 0 ? absl::OkStatus() : FileError("sync", path_);
}

bool ChunkFile::Has(int64_t number) const {
  absl::MutexLock lock(&mu_);
  return number >= 0 && number < static_cast<int64_t>(places_.size()) &&
         places_[number].offset > 0;
}

int64_t ChunkFile::chunks() const {
  absl::MutexLock lock(&mu_);
  return chunks_;
}

int64_t ChunkFile::bytes() const {
  absl::MutexLock lock(&mu_);
  return end_;
}

std::vector<ChunkFile::Size> ChunkFile::Sizes() const {
  absl::MutexLock lock(&mu_);
  std::vector<Size> sizes;
  sizes.reserve(places_.size());
  for (const Place& place : places_)
    sizes.push_back({place.items, place.bytes});
  return sizes;
}

absl::StatusOr<std::string> ChunkFile::Read(int64_t number) const {
  Place place;
  {
    absl::MutexLock lock(&mu_);
    if (number >= 0 && number < static_cast<int64_t>(places_.size())) {
      place = places_[number];
    }
  }
  if (place.offset == 0) {
    return absl::NotFoundError(
        absl::StrCat("chunk ", number, " is not in ", path_));
  }
  std::string payload(place.bytes, '\0');
  if (!ReadAt(fd_, place.offset, payload.data(), payload.size()) ||
      XXH3_64bits(payload.data(), payload.size()) != place.checksum) {
    return Damaged(path_, absl::StrCat("is damaged in chunk ", number));
  }
  return payload;
}

}  // namespace cupola::storage
