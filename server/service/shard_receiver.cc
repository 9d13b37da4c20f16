#include "server/service/shard_receiver.h"

#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/jobs_conversion.h"
#include "server/service/wire.h"

namespace cupola::service {

ShardReceiver::~ShardReceiver() {
  file_.close();
  std::error_code error;
  for (const engine::ReceivedShard& shard : shards_) {
    std::filesystem::remove(shard.path, error);
  }
}

absl::StatusOr<std::optional<grpc::ByteBuffer>> ShardReceiver::Take(
    const grpc::ByteBuffer& message) {
  v1::MergeShardsRequest request;
  RETURN_IF_ERROR(ParseMessage(message, &request));
  if (request.has_options() == has_options_) {
    return absl::InvalidArgumentError(
        has_options_ ? "options: they come again; accepted: once"
                     : "options: they are not set; accepted: first of all");
  }
  switch (request.part_case()) {
    case v1::MergeShardsRequest::kOptions: {
      if (request.options().has_shard()) {
        return absl::InvalidArgumentError(
            "options.shard is set; accepted: unset, as all shards are merged");
      }
      ASSIGN_OR_RETURN(options_, FromProto(request.options()));
      has_options_ = true;
      return std::nullopt;
    }
    case v1::MergeShardsRequest::kHeader: {
      if (shards_.size() >= engine::Jobs::kMaxShards) {
        return absl::ResourceExhaustedError(
            absl::StrCat("header: more than ", engine::Jobs::kMaxShards,
                         " shards; accepted: ", engine::Jobs::kMaxShards));
      }
      ASSIGN_OR_RETURN(std::string path, engine_->jobs().NewPart());
      file_.close();
      file_.clear();
      shards_.push_back(FromProto(request.header()));
      shards_.back().path = std::move(path);
      file_.open(shards_.back().path, std::ios::binary | std::ios::trunc);
      break;
    }
    case v1::MergeShardsRequest::kChunk:
      if (shards_.empty()) {
        return absl::InvalidArgumentError(
            "chunk: it comes before a header; accepted: behind one");
      }
      bytes_ += static_cast<int64_t>(request.chunk().size());
      if (bytes_ > engine_->options().job_bytes) {
        return absl::ResourceExhaustedError(absl::StrCat(
            "chunk: the states have more than ", engine_->options().job_bytes,
            " bytes; accepted: ", engine_->options().job_bytes));
      }
      file_.write(request.chunk().data(),
                  static_cast<std::streamsize>(request.chunk().size()));
      break;
    case v1::MergeShardsRequest::PART_NOT_SET:
      return absl::InvalidArgumentError(
          "part: it is not set; accepted: options, a header, a chunk");
  }
  if (!file_.good()) {
    return absl::ResourceExhaustedError(
        "the states cannot be written: is the server's disk full?");
  }
  return std::nullopt;
}

void ShardReceiver::Finish(const engine::RequestContext& context, Done done) {
  file_.close();
  engine_->MergeShards(
      shards_, options_, context,
      [done = std::move(done)](absl::StatusOr<engine::JobInfo> info) {
        if (!info.ok()) return done(info.status());
        done(SerializeMessage(ToProto(*info)));
      });
}

}  // namespace cupola::service
