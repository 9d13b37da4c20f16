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
namespace {

absl::Status NotWritten() {
  return absl::ResourceExhaustedError(
      "the states cannot be written: is the server's disk full?");
}

}  // namespace

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
      RETURN_IF_ERROR(CloseFile());
      engine::ReceivedShard shard = FromProto(request.header());
      if (!shards_.empty()) {
        const auto& first = shards_.front().specification;
        if (shard.specification->kind != first->kind ||
            shard.specification->text != first->text) {
          return absl::InvalidArgumentError(absl::StrCat(
              "header: shard ", shard.shard.index, " of ", shard.shard.count,
              " is of another job than the first; accepted: shards of one "
              "job"));
        }
        shard.specification = first;
      }
      ASSIGN_OR_RETURN(shard.path, engine_->jobs().NewPart());
      shards_.push_back(std::move(shard));
      file_.open(shards_.back().path, std::ios::binary | std::ios::trunc);
      break;
    }
    case v1::MergeShardsRequest::kChunk:
      if (shards_.empty()) {
        return absl::InvalidArgumentError(
            "chunk: it comes before a header; accepted: behind one");
      }
      RETURN_IF_ERROR(engine_->jobs().HasRoom(
          static_cast<int64_t>(request.chunk().size())));
      file_.write(request.chunk().data(),
                  static_cast<std::streamsize>(request.chunk().size()));
      break;
    case v1::MergeShardsRequest::PART_NOT_SET:
      return absl::InvalidArgumentError(
          "part: it is not set; accepted: options, a header, a chunk");
  }
  if (!file_.good()) return NotWritten();
  return std::nullopt;
}

absl::Status ShardReceiver::CloseFile() {
  if (!file_.is_open()) return absl::OkStatus();
  file_.close();  // what is still in its buffer may not fit the disk
  return file_.good() ? absl::OkStatus() : NotWritten();
}

void ShardReceiver::Finish(const engine::RequestContext& context, Done done) {
  if (absl::Status closed = CloseFile(); !closed.ok()) return done(closed);
  engine_->MergeShards(
      shards_, options_, context,
      [done = std::move(done)](absl::StatusOr<engine::JobInfo> info) {
        if (!info.ok()) return done(info.status());
        done(SerializeMessage(ToProto(*info)));
      });
}

}  // namespace cupola::service
