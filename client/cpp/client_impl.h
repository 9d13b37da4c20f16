#ifndef CUPOLA_CLIENT_CPP_CLIENT_IMPL_H_
#define CUPOLA_CLIENT_CPP_CLIENT_IMPL_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/chunk_assembler.h"
#include "client/cpp/client.h"
#include "client/cpp/routing_metadata.h"
#include "cupola/v1/admin.grpc.pb.h"
#include "cupola/v1/analysis.grpc.pb.h"
#include "cupola/v1/catalog.grpc.pb.h"
#include "cupola/v1/jobs.grpc.pb.h"
#include "grpcpp/grpcpp.h"

namespace cupola {
namespace client_internal {

inline absl::Status ToAbsl(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

}  // namespace client_internal

// The stubs of a connection, and the few ways in which the client's methods use
// them. Immutable; any thread may call.
class Client::Impl {
 public:
  Impl(std::shared_ptr<grpc::Channel> channel, const ClientOptions& options)
      : options_(options),
        analysis_(v1::Analysis::NewStub(channel)),
        catalog_(v1::Catalog::NewStub(channel)),
        admin_(v1::Admin::NewStub(channel)),
        jobs_(v1::Jobs::NewStub(channel)) {}

  // One unary call of `stub`.
  template <typename Response, typename Stub, typename Request>
  absl::StatusOr<Response> Call(
      Stub& stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) const {
    grpc::ClientContext context;
    Prepare(request, &context);
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return client_internal::ToAbsl(status);
    return response;
  }

  // One streamed call: the header with its chunks in place.
  template <typename Response, typename Stub, typename Request>
  absl::StatusOr<typename Response::Header> Stream(
      Stub& stub,
      std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(
          grpc::ClientContext*, const Request&),
      const Request& request) const {
    grpc::ClientContext context;
    Prepare(request, &context);
    const auto reader = (stub.*method)(&context, request);
    Response message;
    if (!reader->Read(&message)) {
      const grpc::Status status = reader->Finish();
      if (!status.ok()) return client_internal::ToAbsl(status);
      return absl::DataLossError("the answer has no header");
    }
    typename Response::Header header = std::move(*message.mutable_header());
    auto assembler = Expect(&header);
    absl::Status sound = assembler.status();
    while (sound.ok() && reader->Read(&message)) {
      sound = assembler->Append(
          absl::string_view(message.chunk().data(), message.chunk().size()));
    }
    if (!sound.ok()) {  // the rest is of no use
      context.TryCancel();
      reader->Finish();
      return sound;
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return client_internal::ToAbsl(status);
    sound = assembler->Finish();
    if (!sound.ok()) return sound;
    return header;
  }

  absl::StatusOr<v1::GenerateResponse::End> Generate(
      const v1::GenerateRequest& request,
      const std::function<bool(const v1::GenerateResponse::Token&)>& token)
      const {
    grpc::ClientContext context;
    Prepare(request, &context);
    const auto reader = analysis_->Generate(&context, request);
    v1::GenerateResponse message, last;
    bool wanted = true;
    while (wanted && reader->Read(&message)) {
      for (const auto& one : message.tokens()) wanted = wanted && token(one);
      if (message.has_end()) last = std::move(message);
    }
    if (!wanted) context.TryCancel();
    const grpc::Status status = reader->Finish();
    if (!wanted) return absl::CancelledError("the caller wants no more tokens");
    if (!status.ok()) return client_internal::ToAbsl(status);
    if (!last.has_end()) return absl::DataLossError("the answer has no end");
    return std::move(*last.mutable_end());
  }

  absl::StatusOr<v1::Job> WatchJob(
      const v1::JobId& request,
      const std::function<bool(const v1::Job&)>& news) const {
    grpc::ClientContext context;
    Prepare(request, &context);
    const auto reader = jobs_->Watch(&context, request);
    v1::Job job;
    bool wanted = true;
    while (wanted && reader->Read(&job)) wanted = news(job);
    if (!wanted) context.TryCancel();
    const grpc::Status status = reader->Finish();
    if (wanted && !status.ok()) return client_internal::ToAbsl(status);
    return job;
  }

  v1::Analysis::Stub& analysis() const { return *analysis_; }
  v1::Catalog::Stub& catalog() const { return *catalog_; }
  v1::Admin::Stub& admin() const { return *admin_; }
  v1::Jobs::Stub& jobs() const { return *jobs_; }

 private:
  template <typename Request>
  void Prepare(const Request& request, grpc::ClientContext* context) const {
    context->set_deadline(absl::ToChronoTime(absl::Now() + options_.deadline));
    if (!options_.token.empty()) {
      context->AddMetadata("authorization",
                           absl::StrCat("Bearer ", options_.token));
    }
    AddRoutingMetadata(request, context);
  }

  // Readies a header for its chunks.
  template <typename Header>
  absl::StatusOr<ChunkAssembler> Expect(Header* header) const {
    int64_t bytes = 0;
    if constexpr (requires { header->provenance(); }) {
      bytes = header->provenance().chunked_bytes();
    } else {
      bytes = ChunkAssembler::MissingBytes(header);
    }
    if (bytes < 0 || bytes > options_.max_answer_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the answer has ", bytes, " bytes; accepted: at most ",
                       options_.max_answer_bytes));
    }
    return ChunkAssembler::Create(header, bytes);
  }

  const ClientOptions options_;
  const std::unique_ptr<v1::Analysis::Stub> analysis_;
  const std::unique_ptr<v1::Catalog::Stub> catalog_;
  const std::unique_ptr<v1::Admin::Stub> admin_;
  const std::unique_ptr<v1::Jobs::Stub> jobs_;
};

}  // namespace cupola

#endif  // CUPOLA_CLIENT_CPP_CLIENT_IMPL_H_
