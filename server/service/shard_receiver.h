#ifndef CUPOLA_SERVER_SERVICE_SHARD_RECEIVER_H_
#define CUPOLA_SERVER_SERVICE_SHARD_RECEIVER_H_

#include <fstream>
#include <vector>

#include "server/engine/engine.h"
#include "server/service/upload_stream.h"

namespace cupola::service {

// Makes a job of the messages of Jobs.MergeShards. The shards' states lie in
// files of their own until it is destroyed.
class ShardReceiver final : public UploadReceiver {
 public:
  // `engine` outlives this.
  explicit ShardReceiver(engine::Engine* engine) : engine_(engine) {}
  ~ShardReceiver() override;

  absl::StatusOr<std::optional<grpc::ByteBuffer>> Take(
      const grpc::ByteBuffer& message) override;
  void Finish(const engine::RequestContext& context, Done done) override;

 private:
  absl::Status CloseFile();

  engine::Engine* const engine_;
  bool has_options_ = false;
  engine::JobOptions options_;
  std::vector<engine::ReceivedShard> shards_;
  std::ofstream file_;  // of the last shard
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_SHARD_RECEIVER_H_
