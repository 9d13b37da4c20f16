#include "server/service/shard_receiver.h"

#include <utility>

#include "server/model/status_macros.h"
#include "server/service/jobs_conversion.h"
#include "server/service/wire.h"

namespace cupola::service {
absl::StatusOr<std::optional<grpc::ByteBuffer>> ShardReceiver::Take(
    const grpc::ByteBuffer& message) {
  v1::MergeShardsRequest request;
  RETURN_IF_ERROR(ParseMessage(message, &request));
  if (request.has_options() == (inbox_ != nullptr)) {
    return absl::InvalidArgumentError(
        inbox_ != nullptr
            ? "options: they come again; accepted: once"
            : "options: they are not set; accepted: first of all");
  }
  switch (request.part_case()) {
    case v1::MergeShardsRequest::kOptions: {
      if (request.options().has_shard()) {
        return absl::InvalidArgumentError(
            "options.shard is set; accepted: unset, as all shards are merged");
      }
      ASSIGN_OR_RETURN(options_, FromProto(request.options()));
      options_.owner = owner_;
      ASSIGN_OR_RETURN(inbox_, engine_->jobs().Receive());
      return std::nullopt;
    }
    case v1::MergeShardsRequest::kHeader:
      RETURN_IF_ERROR(inbox_->Begin(FromProto(request.header())));
      return std::nullopt;
    case v1::MergeShardsRequest::kChunk:
      RETURN_IF_ERROR(inbox_->Append(request.chunk()));
      return std::nullopt;
    case v1::MergeShardsRequest::PART_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "part: it is not set; accepted: options, a header, a chunk");
}

void ShardReceiver::Finish(const engine::RequestContext& context, Done done) {
  if (inbox_ == nullptr) {
    return done(absl::InvalidArgumentError(
        "options: they are not set; accepted: first of all"));
  }
  auto shards = inbox_->Finish();
  if (!shards.ok()) return done(shards.status());
  engine_->MergeShards(
      *std::move(shards), options_, context,
      [done = std::move(done)](absl::StatusOr<engine::JobInfo> info) {
        if (!info.ok()) return done(info.status());
        done(SerializeMessage(ToProto(*info)));
      });
}

}  // namespace cupola::service
