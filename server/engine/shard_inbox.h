#ifndef CUPOLA_SERVER_ENGINE_SHARD_INBOX_H_
#define CUPOLA_SERVER_ENGINE_SHARD_INBOX_H_

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/byte_quota.h"
#include "server/engine/job_info.h"
#include "storage/state_file.h"

namespace cupola::engine {

// What a kind of job computes: `text` is all that its maker needs.
struct JobSpecification {
  std::string kind, title, text;
};

// The state of a shard, received from another server: a file. Shards of one job
// share its specification, which may be large.
struct ReceivedShard {
  std::shared_ptr<const JobSpecification> specification;
  Shard shard;
  int64_t tokens = 0;  // as the sender says; 0: it does not
  std::string path;
};

// Shards that come in pieces: files that are gone with this. Every byte is
// taken from the quota of states before it is written. Used by one thread at a
// time.
class ShardInbox {
 public:
  static constexpr size_t kMaxShards = 1024;

  // Files begin with `prefix`. `place`, where it is set, is let go at the end.
  ShardInbox(std::string prefix, std::shared_ptr<ByteQuota> quota,
             std::shared_ptr<void> place);
  ~ShardInbox();
  ShardInbox(const ShardInbox&) = delete;
  ShardInbox& operator=(const ShardInbox&) = delete;

  // The next shard; its path is set here. INVALID_ARGUMENT: it is of another
  // job than the first; RESOURCE_EXHAUSTED: one too many, the quota, the disk.
  absl::Status Begin(ReceivedShard shard);
  // More of the last shard's state. INVALID_ARGUMENT: there is no shard yet.
  absl::Status Append(absl::string_view bytes);
  // Nothing more comes. The files stay until this goes.
  absl::StatusOr<std::vector<ReceivedShard>> Finish();

 private:
  absl::Status CloseFile();

  const std::string prefix_;
  const std::shared_ptr<void> place_;
  ByteQuota::Share share_;
  std::vector<ReceivedShard> shards_;
  std::unique_ptr<std::FILE, storage::CloseFile> file_;  // of the last
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_SHARD_INBOX_H_
