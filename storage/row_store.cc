#include "storage/row_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace cupola::storage {
namespace {

std::string BlockKey(const std::string& prefix, char what, uint64_t number) {
  return absl::StrCat(prefix, std::string(1, what),
                      absl::Hex(number, absl::kZeroPad8));
}

template <typename T>
void Put(std::string* bytes, const T* values, size_t count) {
  bytes->append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

}  // namespace

absl::Status RowWriter::Append(absl::string_view row) {
  if (row.size() > kMaxRowBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("row ", rows_, " has ", row.size(),
                     " bytes; accepted: ", kMaxRowBytes));
  }
  if (!block_.empty() && block_.size() + row.size() > kBlockBytes) {
    if (absl::Status s = FlushBlock(); !s.ok()) return s;
  }
  if (block_lengths_.empty()) firsts_.push_back(static_cast<uint64_t>(rows_));
  const auto length = static_cast<uint32_t>(row.size());
  block_lengths_.push_back(length);
  lengths_.push_back(length);
  block_.append(row.data(), row.size());
  ++rows_;
  bytes_ += static_cast<int64_t>(row.size());
  // Rows without bytes fill a block, too.
  if (block_lengths_.size() >= kBlockBytes / sizeof(uint32_t)) {
    if (absl::Status s = FlushBlock(); !s.ok()) return s;
  }
  return lengths_.size() < kLengthsAtOnce ? absl::OkStatus() : FlushLengths();
}

absl::Status RowWriter::FlushBlock() {
  if (block_lengths_.empty()) return absl::OkStatus();
  std::string value;
  value.reserve(sizeof(uint32_t) * (1 + block_lengths_.size()) + block_.size());
  const auto count = static_cast<uint32_t>(block_lengths_.size());
  Put(&value, &count, 1);
  Put(&value, block_lengths_.data(), block_lengths_.size());
  value += block_;
  block_lengths_.clear();
  block_.clear();
  return store_->Put(BlockKey(prefix_, 'b', firsts_.size() - 1), value);
}

absl::Status RowWriter::FlushLengths() {
  std::string value;
  Put(&value, lengths_.data(), lengths_.size());
  lengths_.clear();
  return store_->Put(BlockKey(prefix_, 'l', length_blocks_++), value);
}

absl::Status RowWriter::Finish() {
  if (absl::Status s = FlushBlock(); !s.ok()) return s;
  if (absl::Status s = FlushLengths(); !s.ok()) return s;
  const uint64_t head[] = {static_cast<uint64_t>(rows_), firsts_.size()};
  std::string index;
  Put(&index, head, 2);
  Put(&index, firsts_.data(), firsts_.size());
  return store_->Put(absl::StrCat(prefix_, "i"), index);
}

absl::Status RowReader::Damaged() const {
  return absl::DataLossError(
      absl::StrCat("the rows under ", prefix_, " are damaged"));
}

absl::StatusOr<std::unique_ptr<RowReader>> RowReader::Open(
    const DurableStore* store, std::string prefix) {
  auto reader = absl::WrapUnique(new RowReader(store, std::move(prefix)));
  const auto index = store->Get(absl::StrCat(reader->prefix_, "i"));
  if (!index.ok()) return index.status();
  uint64_t head[2];
  if (index->size() < sizeof(head)) return reader->Damaged();
  std::memcpy(head, index->data(), sizeof(head));
  if ((index->size() - sizeof(head)) / sizeof(uint64_t) != head[1] ||
      head[0] > uint64_t{1} << 40) {
    return reader->Damaged();
  }
  reader->rows_ = static_cast<int64_t>(head[0]);
  reader->firsts_.resize(head[1]);
  std::memcpy(reader->firsts_.data(), index->data() + sizeof(head),
              head[1] * sizeof(uint64_t));
  const auto& firsts = reader->firsts_;
  const bool ordered =
      std::is_sorted(firsts.begin(), firsts.end()) &&
      (firsts.empty() ? head[0] == 0
                      : firsts.front() == 0 && firsts.back() < head[0]);
  if (!ordered) return reader->Damaged();
  return reader;
}

absl::StatusOr<std::string> RowReader::Block(char what, uint64_t number) const {
  auto value = store_->Get(BlockKey(prefix_, what, number));
  if (absl::IsNotFound(value.status())) return Damaged();  // of the index
  return value;
}

absl::StatusOr<std::vector<uint32_t>> RowReader::Lengths() const {
  std::vector<uint32_t> lengths;
  for (uint64_t n = 0; lengths.size() < static_cast<size_t>(rows_); ++n) {
    const auto value = Block('l', n);
    if (!value.ok()) return value.status();
    const size_t begin = lengths.size();
    const size_t count = value->size() / sizeof(uint32_t);
    if (count == 0 || begin + count > static_cast<size_t>(rows_)) {
      return Damaged();
    }
    lengths.resize(begin + count);
    std::memcpy(lengths.data() + begin, value->data(),
                count * sizeof(uint32_t));
  }
  return lengths;
}

size_t RowReader::BlockOf(int64_t row) const {
  return std::upper_bound(firsts_.begin(), firsts_.end(),
                          static_cast<uint64_t>(row)) -
         firsts_.begin() - 1;
}

int64_t RowReader::RowsInBlock(int64_t first) const {
  const size_t next = BlockOf(first) + 1;
  return (next < firsts_.size() ? static_cast<int64_t>(firsts_[next]) : rows_) -
         first;
}

absl::StatusOr<std::vector<std::string>> RowReader::Read(int64_t first,
                                                         int64_t last) const {
  std::vector<std::string> rows;
  for (int64_t at = first; at < last;) {
    const size_t number = BlockOf(at);
    const int64_t in_block = RowsInBlock(at);
    const auto skipped = static_cast<size_t>(at) - firsts_[number];
    const auto value = Block('b', number);
    if (!value.ok()) return value.status();
    uint32_t count = 0;
    if (value->size() < sizeof(count)) return Damaged();
    std::memcpy(&count, value->data(), sizeof(count));
    if (count != skipped + static_cast<size_t>(in_block) ||
        (value->size() - sizeof(count)) / sizeof(uint32_t) < count) {
      return Damaged();
    }
    std::vector<uint32_t> lengths(count);
    std::memcpy(lengths.data(), value->data() + sizeof(count),
                count * sizeof(uint32_t));
    size_t offset = sizeof(uint32_t) * (1 + size_t{count});
    for (size_t i = 0; i < count; ++i) {
      if (lengths[i] > value->size() - offset) return Damaged();
      if (i >= skipped && at < last) {
        rows.push_back(value->substr(offset, lengths[i]));
        ++at;
      }
      offset += lengths[i];
    }
  }
  return rows;
}

}  // namespace cupola::storage
