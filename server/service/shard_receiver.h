#ifndef CUPOLA_SERVER_SERVICE_SHARD_RECEIVER_H_
#define CUPOLA_SERVER_SERVICE_SHARD_RECEIVER_H_

#include <memory>
#include <string>
#include <utility>

#include "server/engine/engine.h"
#include "server/service/upload_stream.h"

namespace cupola::service {

// Makes a job of the messages of Jobs.MergeShards. The shards' states lie in
// files of their own until it is destroyed (engine/shard_inbox.h).
class ShardReceiver final : public UploadReceiver {
 public:
  // `engine` outlives this. `owner`: the job's.
  ShardReceiver(engine::Engine* engine, std::string owner)
      : engine_(engine), owner_(std::move(owner)) {}

  absl::StatusOr<std::optional<grpc::ByteBuffer>> Take(
      const grpc::ByteBuffer& message) override;
  void Finish(const engine::RequestContext& context, Done done) override;

 private:
  engine::Engine* const engine_;
  const std::string owner_;
  engine::JobOptions options_;
  std::unique_ptr<engine::ShardInbox> inbox_;  // null: no options yet
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_SHARD_RECEIVER_H_
