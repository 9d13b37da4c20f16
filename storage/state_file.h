#ifndef CUPOLA_STORAGE_STATE_FILE_H_
#define CUPOLA_STORAGE_STATE_FILE_H_

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/digest.h"

struct XXH3_state_s;

namespace cupola::storage {

// The state of a long computation as one file, which may hold gigabytes: a
// checkpoint, later also a shard that travels to another machine. Integers are
// little-endian:
//
//   "CUPSTATE"                 8 bytes
//   format                     u32, 1
//   length of kind, kind       u32, bytes: what computes this
//   version                    u32: of the kind's own body
//   identity                   32 bytes: what the computation is
//   chunks                     i64: how many of its chunks are in here
//   body                       the kind's own
//   body bytes, checksum       u64, u64 (XXH3 of all before the checksum)
//
// A file has its name only when it is whole and on the disk: what a crash or a
// full disk leaves behind is a file named "*.part", which nobody reads.
struct StateHeader {
  std::string kind;
  uint32_t version = 0;
  Digest identity{};
  int64_t chunks = 0;
};

struct FreeHash {
  void operator()(XXH3_state_s* state) const;
};
struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

// Not thread-safe. Errors: RESOURCE_EXHAUSTED (a full disk), else INTERNAL,
// naming the file.
class StateWriter {
 public:
  // Asked before so many bytes are written: what it refuses is not, and has
  // its error.
  using Meter = std::function<absl::Status(int64_t)>;
  static absl::StatusOr<std::unique_ptr<StateWriter>> Create(
      const std::string& path, const StateHeader& header, Meter meter = {});
  ~StateWriter();  // without Commit: nothing is left
  StateWriter(const StateWriter&) = delete;
  StateWriter& operator=(const StateWriter&) = delete;

  absl::Status Append(const void* data, size_t bytes);
  template <typename T>
  absl::Status AppendValue(const T& value) {
    return Append(&value, sizeof(value));
  }
  // When it returns OK, the file survives a loss of power.
  absl::Status Commit();

 private:
  StateWriter(std::string path, Meter meter);
  absl::Status Write(const void* data, size_t bytes);
  absl::Status Failure(absl::string_view doing) const;

  const std::string path_, part_;
  const Meter meter_;
  std::unique_ptr<std::FILE, CloseFile> file_;
  std::unique_ptr<XXH3_state_s, FreeHash> hash_;
  uint64_t body_bytes_ = 0;
};

// Not thread-safe.
class StateReader {
 public:
  // Reads the whole file once and checks it. NOT_FOUND; DATA_LOSS where the
  // file is not what was committed, or of a format that this program does not
  // know.
  static absl::StatusOr<std::unique_ptr<StateReader>> Open(
      const std::string& path);
  StateReader(const StateReader&) = delete;
  StateReader& operator=(const StateReader&) = delete;

  const StateHeader& header() const { return header_; }
  // The next bytes of the body. DATA_LOSS where it ends before.
  absl::Status Read(void* data, size_t bytes);
  template <typename T>
  absl::Status ReadValue(T* value) {
    return Read(value, sizeof(*value));
  }
  uint64_t left() const { return left_; }

 private:
  explicit StateReader(std::string path);
  absl::Status ReadHeader();
  absl::Status Verify();
  absl::Status ReadRaw(void* data, size_t bytes);
  absl::Status Damaged(absl::string_view why) const;

  const std::string path_;
  std::unique_ptr<std::FILE, CloseFile> file_;
  StateHeader header_;
  uint64_t body_begin_ = 0, left_ = 0;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_STATE_FILE_H_
