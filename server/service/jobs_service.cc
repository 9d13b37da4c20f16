#include "server/service/jobs_service.h"

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "server/service/chunked_writer.h"
#include "server/service/job_watch.h"
#include "server/service/jobs_conversion.h"
#include "server/service/unary_call.h"

namespace cupola::service {
namespace {

void Reply(UnaryCall* call, const absl::StatusOr<engine::JobInfo>& info) {
  if (info.ok()) {
    call->Send(ToProto(*info));
  } else {
    call->Fail(info.status());
  }
}

// One call about one job: `ask` is one of the jobs' own, on the executor.
UnaryCall* AskOfOne(
    const Environment& environment, const char* method,
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response,
    absl::StatusOr<engine::JobInfo> (*ask)(engine::Jobs&, const std::string&)) {
  auto* call = new UnaryCall(MakeScope(environment, method, context), response);
  const Environment* mine = &environment;
  Receive<v1::JobId>(environment, call, request,
                     [mine, call, ask](const v1::JobId& message) {
                       mine->executor->Run([=, id = message.id()] {
                         Reply(call, ask(mine->engine->jobs(), id));
                       });
                     });
  return call;
}

}  // namespace

grpc::ServerUnaryReactor* JobsService::AccumulateJacobian(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call = new UnaryCall(
      MakeScope(environment_, "AccumulateJacobian", context), response);
  Receive<v1::AccumulateJacobianRequest>(
      environment_, call, request,
      [this, call](v1::AccumulateJacobianRequest message) {
        auto plain = FromProto(std::move(message));
        if (!plain.ok()) {
          call->Fail(plain.status());
          return;
        }
        call->scope().notes().dictionary = plain->jacobian.dictionary;
        environment_.engine->AccumulateJacobian(
            *std::move(plain), call->scope().context(),
            [call](absl::StatusOr<engine::JobInfo> info) {
              Reply(call, info);
            });
      });
  return call;
}

grpc::ServerUnaryReactor* JobsService::List(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "ListJobs", context), response);
  Receive<v1::ListJobsRequest>(
      environment_, call, request, [this, call](const v1::ListJobsRequest&) {
        const auto jobs = environment_.engine->jobs().List();
        if (!jobs.ok()) {
          call->Fail(jobs.status());
          return;
        }
        v1::ListJobsResponse answer;
        for (const engine::JobInfo& info : *jobs) {
          *answer.add_jobs() = ToProto(info);
        }
        call->Send(answer);
      });
  return call;
}

grpc::ServerUnaryReactor* JobsService::Get(grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response) {
  return AskOfOne(
      environment_, "GetJob", context, request, response,
      [](engine::Jobs& jobs, const std::string& id) { return jobs.Get(id); });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* JobsService::Watch(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  auto* call = new JobWatch(MakeScope(environment_, "WatchJob", context));
  Receive<v1::JobId>(environment_, call, request,
                     [this, call](const v1::JobId& message) {
                       call->Follow(&environment_.engine->jobs(), message.id());
                     });
  return call;
}

grpc::ServerUnaryReactor* JobsService::Cancel(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return AskOfOne(environment_, "CancelJob", context, request, response,
                  [](engine::Jobs& jobs, const std::string& id) {
                    return jobs.Cancel(id);
                  });
}

grpc::ServerUnaryReactor* JobsService::Resume(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return AskOfOne(environment_, "ResumeJob", context, request, response,
                  [](engine::Jobs& jobs, const std::string& id) {
                    return jobs.Resume(id);
                  });
}

grpc::ServerUnaryReactor* JobsService::Delete(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call =
      new UnaryCall(MakeScope(environment_, "DeleteJob", context), response);
  Receive<v1::JobId>(
      environment_, call, request, [this, call](const v1::JobId& message) {
        environment_.executor->Run([=, this, id = message.id()] {
          const absl::Status deleted = environment_.engine->jobs().Delete(id);
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
  auto* call =
      new ChunkedWriter(MakeScope(environment_, "GetJacobianTotals", context));
  Receive<v1::JacobianTotalsRequest>(
      environment_, call, request,
      [this, call](const v1::JacobianTotalsRequest& message) {
        auto plain = FromProto(message);
        if (!plain.ok()) {
          call->Fail(plain.status());
          return;
        }
        engine::Engine* engine = environment_.engine;
        const auto done =
            [=, id = plain->job](
                absl::StatusOr<engine::JacobianTotalsAnswer> answer) {
              const auto job = engine->jobs().Get(id);
              if (!answer.ok() || !job.ok()) {
                call->Fail(answer.ok() ? job.status() : answer.status());
                return;
              }
              call->scope().AnswerReady();
              auto streamed = ToProto(*std::move(answer), *job);
              call->Send(streamed.first, std::move(streamed.pieces));
            };
        engine->QueryJacobianTotals(*std::move(plain), call->scope().context(),
                                    done);
      });
  return call;
}

}  // namespace cupola::service
