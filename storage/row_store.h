#ifndef CUPOLA_STORAGE_ROW_STORE_H_
#define CUPOLA_STORAGE_ROW_STORE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/durable_store.h"

namespace cupola::storage {

// Many rows of bytes in a durable store, written once from the first to the
// last and read by their numbers. The rows lie in blocks of about 1 MiB under a
// prefix of keys, so that neither side ever holds more than one block, and an
// index of 8 bytes a block and 4 a row.
//
//   PREFIX b<8 hex>   a block: u32 count, u32 bytes[count], the rows' bytes
//   PREFIX l<8 hex>   u32 bytes of kLengthsAtOnce rows
//   PREFIX i          u64 rows, u64 blocks, then each block's first row, u64
//
// The index is written last: without it nothing is there. Errors are
// DurableStore's.
class RowWriter {
 public:
  static constexpr size_t kBlockBytes = size_t{1} << 20;
  static constexpr size_t kLengthsAtOnce = size_t{1} << 18;
  static constexpr size_t kMaxRowBytes = size_t{1} << 30;

  // `store` outlives this.
  RowWriter(DurableStore* store, std::string prefix)
      : store_(store), prefix_(std::move(prefix)) {}

  // INVALID_ARGUMENT: more than kMaxRowBytes.
  absl::Status Append(absl::string_view row);
  // When it returns OK, all rows survive a loss of power.
  absl::Status Finish();

  int64_t rows() const { return rows_; }
  int64_t bytes() const { return bytes_; }  // of all rows
  // What a row takes beside its bytes: its length, twice.
  static constexpr int64_t kRowBytes = 8;
  int64_t stored_bytes() const { return bytes_ + kRowBytes * rows_; }

 private:
  absl::Status FlushBlock();
  absl::Status FlushLengths();

  DurableStore* const store_;
  const std::string prefix_;
  std::vector<uint32_t> block_lengths_, lengths_;
  std::string block_;
  std::vector<uint64_t> firsts_;  // of each block
  int64_t rows_ = 0, bytes_ = 0;
  uint32_t length_blocks_ = 0;
};

// Any thread may read.
class RowReader {
 public:
  // `store` outlives this. NOT_FOUND where the prefix has no index; DATA_LOSS.
  static absl::StatusOr<std::unique_ptr<RowReader>> Open(
      const DurableStore* store, std::string prefix);

  int64_t rows() const { return rows_; }
  // The bytes of each row; reads the index anew: hold it who needs it.
  absl::StatusOr<std::vector<uint32_t>> Lengths() const;
  // Rows [first, last); whole blocks are read, one at a time. REQUIRES:
  // 0 <= first <= last <= rows(). DATA_LOSS.
  absl::StatusOr<std::vector<std::string>> Read(int64_t first,
                                                int64_t last) const;
  // How many rows from `first` on lie in its block: a good number to read.
  int64_t RowsInBlock(int64_t first) const;

 private:
  RowReader(const DurableStore* store, std::string prefix)
      : store_(store), prefix_(std::move(prefix)) {}
  size_t BlockOf(int64_t row) const;
  absl::Status Damaged() const;
  // A block's value.
  absl::StatusOr<std::string> Block(char what, uint64_t number) const;

  const DurableStore* const store_;
  const std::string prefix_;
  int64_t rows_ = 0;
  std::vector<uint64_t> firsts_;
};

}  // namespace cupola::storage

#endif  // CUPOLA_STORAGE_ROW_STORE_H_
