#ifndef CUPOLA_STORAGE_CHUNK_FILE_H_
#define CUPOLA_STORAGE_CHUNK_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace cupola::storage {

// A large result in numbered chunks, as one file that only grows: chunks come
// in any order, each whole or not at all, and are read by their numbers while
// others are still written. Integers are little-endian:
//
//   "CUPCHUNK"            8 bytes
//   format, about bytes   u32 (1), u32
//   checksum              u64, XXH3 of about
//   about                 what the file is, its maker's own
//   then of each chunk    i64 number, i64 items, u64 bytes, u64 XXH3 of the
//                         payload, u64 XXH3 of these 32 bytes; the payload
//
// A number that was written twice counts as it was written last. What a process
// that was killed has not finished is cut off when the file is next opened.
// Chunks survive a loss of power once Sync has returned OK; one that does not,
// though its header does, is DATA_LOSS where it is read. A header that is no
// header is DATA_LOSS when the file is opened, which is left as it is.
//
// Any thread may read; one at a time writes. Errors: RESOURCE_EXHAUSTED (a full
// disk: the file is as it was before), DATA_LOSS, else INTERNAL, naming it.
class ChunkFile {
 public:
  static constexpr int64_t kMaxChunks = int64_t{1} << 22;  // numbers are below
  static constexpr uint32_t kMaxAboutBytes = 1 << 20;
  static constexpr int64_t kMaxPayload = int64_t{1} << 31;

  // ALREADY_EXISTS; INVALID_ARGUMENT: more than kMaxAboutBytes.
  static absl::StatusOr<std::unique_ptr<ChunkFile>> Create(
      const std::string& path, absl::string_view about);
  // NOT_FOUND; DATA_LOSS where it is no such file.
  static absl::StatusOr<std::unique_ptr<ChunkFile>> Open(
      const std::string& path);
  ~ChunkFile();
  ChunkFile(const ChunkFile&) = delete;
  ChunkFile& operator=(const ChunkFile&) = delete;

  const std::string& about() const { return about_; }
  // `items`: how many there are in the payload, told without reading it.
  // INVALID_ARGUMENT: a number or size that is not taken.
  absl::Status Append(int64_t number, int64_t items, absl::string_view payload);
  absl::Status Sync();

  bool Has(int64_t number) const;
  int64_t chunks() const;  // that are there
  int64_t bytes() const;   // of the file
  struct Size {
    int64_t items = 0, bytes = 0;  // 0 of a chunk that is not there
  };
  // Of the chunks from 0 to the last that is there.
  std::vector<Size> Sizes() const;
  // The payload. NOT_FOUND: no such chunk.
  absl::StatusOr<std::string> Read(int64_t number) const;

 private:
  struct Place {
    int64_t offset = 0;  // of the payload; 0: not there
    int64_t items = 0, bytes = 0;
    uint64_t checksum = 0;
  };
  ChunkFile(std::string path, int fd, std::string about);
  absl::Status ReadIndex() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Note(int64_t number, const Place& place)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string path_;
  const int fd_;
  std::string about_;  // as it is when others see this
  mutable absl::Mutex mu_;
  std::vector<Place> places_ ABSL_GUARDED_BY(mu_);  // by number
  int64_t chunks_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t end_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_CHUNK_FILE_H_
