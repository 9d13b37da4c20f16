#include "server/engine/shard_inbox.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

absl::Status NotWritten() {
  return absl::ResourceExhaustedError(
      "the states cannot be written: is the server's disk full?");
}

}  // namespace

ShardInbox::ShardInbox(std::string prefix, std::shared_ptr<ByteQuota> quota,
                       std::shared_ptr<void> place)
    : prefix_(std::move(prefix)),
      place_(std::move(place)),
      share_(std::move(quota)) {}

ShardInbox::~ShardInbox() {
  file_ = nullptr;
  std::error_code error;
  for (const ReceivedShard& shard : shards_) {
    std::filesystem::remove(shard.path, error);
  }
}

absl::Status ShardInbox::Begin(ReceivedShard shard) {
  if (shards_.size() >= kMaxShards) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "header: more than ", kMaxShards, " shards; accepted: ", kMaxShards));
  }
  RETURN_IF_ERROR(CloseFile());
  if (shards_.empty()) {
    // It lies with the job that the shards become.
    RETURN_IF_ERROR(
        share_.Grow(static_cast<int64_t>(shard.specification->text.size())));
  } else {
    const auto& first = shards_.front().specification;
    if (shard.specification->kind != first->kind ||
        shard.specification->text != first->text) {
      return absl::InvalidArgumentError(absl::StrCat(
          "header: shard ", shard.shard.index, " of ", shard.shard.count,
          " is of another job than the first; accepted: shards of one job"));
    }
    shard.specification = first;
  }
  shard.path = absl::StrCat(prefix_, shards_.size(), ".part");
  shards_.push_back(std::move(shard));
  file_.reset(std::fopen(shards_.back().path.c_str(), "wbxe"));
  return file_ != nullptr ? absl::OkStatus() : NotWritten();
}

absl::Status ShardInbox::Append(absl::string_view bytes) {
  if (file_ == nullptr) {
    return absl::InvalidArgumentError(
        "chunk: it comes before a header; accepted: behind one");
  }
  RETURN_IF_ERROR(share_.Grow(static_cast<int64_t>(bytes.size())));
  const size_t written =
      std::fwrite(bytes.data(), 1, bytes.size(), file_.get());
  return written == bytes.size() ? absl::OkStatus() : NotWritten();
}

absl::StatusOr<std::vector<ReceivedShard>> ShardInbox::Finish() {
  RETURN_IF_ERROR(CloseFile());
  return shards_;
}

absl::Status ShardInbox::CloseFile() {
  if (file_ == nullptr) return absl::OkStatus();
  // What is still in its buffer may not fit the disk.
  return std::fclose(file_.release()) == 0 ? absl::OkStatus() : NotWritten();
}

}  // namespace cupola::engine
