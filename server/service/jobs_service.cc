#include "server/service/jobs_service.h"

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "server/service/chunked_writer.h"
#include "server/service/coactivation_conversion.h"
#include "server/service/direction_statistics_conversion.h"
#include "server/service/feature_statistics_conversion.h"
#include "server/service/job_watch.h"
#include "server/service/jobs_conversion.h"
#include "server/service/match_features_conversion.h"
#include "server/service/shard_receiver.h"
#include "server/service/submit_job.h"
#include "server/service/upload_stream.h"

namespace cupola::service {
namespace {

// The next bytes of a file that is sent; none at its end.
absl::StatusOr<std::string> ReadPiece(std::FILE* file) {
  std::string piece(kChunkBytes, '\0');
  piece.resize(std::fread(piece.data(), 1, piece.size(), file));
  if (std::ferror(file) != 0) {
    return absl::DataLossError("the state cannot be read");
  }
  return piece;
}

// One call about one job: `ask` is one of the jobs' own, on the executor.
UnaryCall* AskOfOne(
    const Environment& environment, const char* method,
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response,
    absl::StatusOr<engine::JobInfo> (*ask)(engine::Jobs&, const std::string&,
                                           const engine::Actor&)) {
  auto* call = new UnaryCall(MakeScope(environment, method, context), response);
  const Environment* mine = &environment;
  Receive<v1::JobId>(
      environment, call, request, [mine, call, ask](const v1::JobId& message) {
        mine->executor->Run([=, id = message.id()] {
          Reply(call, ask(mine->engine->jobs(), id, call->scope().actor()));
        });
      });
  return call;
}

// One question about a result: `query` is one of the engine's own.
template <typename Message, typename Answer, typename Query>
ChunkedWriter* QueryJob(const Environment& environment, const char* method,
                        grpc::CallbackServerContext* context,
                        const grpc::ByteBuffer* request, Query query) {
  auto* call = new ChunkedWriter(MakeScope(environment, method, context));
  engine::Engine* engine = environment.engine;
  Receive<Message>(environment, call, request, [=](const Message& message) {
    auto plain = FromProto(message);
    if (!plain.ok()) return call->Fail(plain.status());
    const auto done = [=, id = plain->job](absl::StatusOr<Answer> answer) {
      const auto job = engine->jobs().Get(id);
      if (!answer.ok() || !job.ok()) {
        call->Fail(answer.ok() ? job.status() : answer.status());
        return;
      }
      call->scope().AnswerReady();
      auto streamed = ToProto(*std::move(answer), *job);
      call->Send(streamed.first, std::move(streamed.pieces));
    };
    (engine->*query)(*std::move(plain), call->scope().context(), done);
  });
  return call;
}

}  // namespace

grpc::ServerUnaryReactor* JobsService::AccumulateJacobian(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return SubmitJob<v1::AccumulateJacobianRequest>(
      environment_, "AccumulateJacobian", context, request, response,
      &engine::Engine::AccumulateJacobian);
}

grpc::ServerUnaryReactor* JobsService::ComputeFeatureStatistics(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return SubmitJob<v1::FeatureStatisticsRequest>(
      environment_, "ComputeFeatureStatistics", context, request, response,
      &engine::Engine::ComputeFeatureStatistics);
}

grpc::ServerUnaryReactor* JobsService::MatchFeatures(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return SubmitJob<v1::MatchFeaturesRequest>(environment_, "MatchFeatures",
                                             context, request, response,
                                             &engine::Engine::MatchFeatures);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobsService::GetFeatureMatching(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return QueryJob<v1::GetFeatureMatchingRequest, engine::FeatureMatchingAnswer>(
      environment_, "GetFeatureMatching", context, request,
      &engine::Engine::QueryFeatureMatching);
}

grpc::ServerUnaryReactor* JobsService::CountCoactivation(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return SubmitJob<v1::CoactivationRequest>(environment_, "CountCoactivation",
                                            context, request, response,
                                            &engine::Engine::CountCoactivation);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobsService::GetCoactivation(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return QueryJob<v1::GetCoactivationRequest, engine::CoactivationAnswer>(
      environment_, "GetCoactivation", context, request,
      &engine::Engine::QueryCoactivation);
}

grpc::ServerUnaryReactor* JobsService::ComputeDirectionStatistics(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return SubmitJob<v1::DirectionStatisticsRequest>(
      environment_, "ComputeDirectionStatistics", context, request, response,
      &engine::Engine::ComputeDirectionStatistics);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobsService::GetDirectionStatistics(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return QueryJob<v1::GetDirectionStatisticsRequest,
                  engine::DirectionStatisticsAnswer>(
      environment_, "GetDirectionStatistics", context, request,
      &engine::Engine::QueryDirectionStatistics);
}

grpc::ServerUnaryReactor* JobsService::List(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "ListJobs", context), response);
  Receive<v1::ListJobsRequest>(
      environment_, call, request, [this, call](const v1::ListJobsRequest&) {
        environment_.executor->Run([this, call] {
          const auto jobs = environment_.engine->jobs().List();
          if (!jobs.ok()) return call->Fail(jobs.status());
          v1::ListJobsResponse answer;
          for (const engine::JobInfo& info : *jobs) {
            *answer.add_jobs() = ToProto(info);
          }
          call->Send(answer);
        });
      });
  return call;
}

grpc::ServerUnaryReactor* JobsService::Get(grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response) {
  return AskOfOne(environment_, "GetJob", context, request, response,
                  [](engine::Jobs& jobs, const std::string& id,
                     const engine::Actor&) { return jobs.Get(id); });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobsService::Watch(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  auto* call = new JobWatch(MakeScope(environment_, "WatchJob", context));
  Receive<v1::JobId>(
      environment_, call, request, [this, call](const v1::JobId& message) {
        environment_.executor->Run([this, call, id = message.id()] {
          call->Follow(&environment_.engine->jobs(), id);
        });
      });
  return call;
}

grpc::ServerUnaryReactor* JobsService::Cancel(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return AskOfOne(environment_, "CancelJob", context, request, response,
                  [](engine::Jobs& jobs, const std::string& id,
                     const engine::Actor& by) { return jobs.Cancel(id, by); });
}

grpc::ServerUnaryReactor* JobsService::Resume(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return AskOfOne(environment_, "ResumeJob", context, request, response,
                  [](engine::Jobs& jobs, const std::string& id,
                     const engine::Actor& by) { return jobs.Resume(id, by); });
}

grpc::ServerUnaryReactor* JobsService::Delete(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "DeleteJob", context), response);
  Receive<v1::JobId>(
      environment_, call, request, [this, call](const v1::JobId& message) {
        environment_.executor->Run([=, this, id = message.id()] {
          const absl::Status deleted =
              environment_.engine->jobs().Delete(id, call->scope().actor());
          if (deleted.ok()) {
            call->Send(v1::DeleteJobResponse());
          } else {
            call->Fail(deleted);
          }
        });
      });
  return call;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobsService::GetJacobianTotals(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return QueryJob<v1::JacobianTotalsRequest, engine::JacobianTotalsAnswer>(
      environment_, "GetJacobianTotals", context, request,
      &engine::Engine::QueryJacobianTotals);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobsService::GetFeatureStatistics(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return QueryJob<v1::GetFeatureStatisticsRequest,
                  engine::FeatureStatisticsAnswer>(
      environment_, "GetFeatureStatistics", context, request,
      &engine::Engine::QueryFeatureStatistics);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobsService::ExportShard(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  auto* call =
      new ChunkedWriter(MakeScope(environment_, "ExportShard", context));
  Receive<v1::JobId>(
      environment_, call, request, [this, call](const v1::JobId& message) {
        environment_.executor->Run([=, this, id = message.id()] {
          auto shard = environment_.engine->jobs().Export(id);
          if (!shard.ok()) return call->Fail(shard.status());
          v1::ExportShardResponse first;
          *first.mutable_header() = ToProto(*shard);
          call->SendFrom(
              first, environment_.executor,
              [state = std::shared_ptr<std::FILE>(std::move(shard->state))] {
                return ReadPiece(state.get());
              });
        });
      });
  return call;
}

grpc::ServerReadReactor<grpc::ByteBuffer>* JobsService::MergeShards(
    grpc::CallbackServerContext* context, grpc::ByteBuffer* response) {
  auto scope = MakeScope(environment_, "MergeShards", context);
  auto receiver =
      std::make_unique<ShardReceiver>(environment_.engine, scope->actor().name);
  return new UploadStream(disk_.get(), std::move(scope), context, response,
                          std::move(receiver));
}

}  // namespace cupola::service
