#include "client/cpp/client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/chunk_assembler.h"
#include "client/cpp/routing_metadata.h"
#include "cupola/v1/admin.grpc.pb.h"
#include "cupola/v1/analysis.grpc.pb.h"
#include "cupola/v1/catalog.grpc.pb.h"
#include "grpcpp/grpcpp.h"

namespace cupola {
namespace {

// Answers are pure functions of their requests, so asking again is safe.
constexpr char kServiceConfig[] = R"json({
  "methodConfig": [{
    "name": [{"service": "cupola.v1.Analysis"},
             {"service": "cupola.v1.Catalog"},
             {"service": "cupola.v1.Admin"}],
    "retryPolicy": {
      "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s",
      "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
})json";
constexpr int kKeepaliveMilliseconds = 60'000;

absl::Status ToAbsl(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

}  // namespace

class Client::Impl {
 public:
  Impl(std::shared_ptr<grpc::Channel> channel, const ClientOptions& options)
      : options_(options),
        analysis_(v1::Analysis::NewStub(channel)),
        catalog_(v1::Catalog::NewStub(channel)),
        admin_(v1::Admin::NewStub(channel)) {}

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
    if (!status.ok()) return ToAbsl(status);
    return response;
  }

  // One streamed call: the header with its chunks in place.
  template <typename Response, typename Request>
  absl::StatusOr<typename Response::Header> Stream(
      std::unique_ptr<grpc::ClientReader<Response>> (
          v1::Analysis::Stub::*method)(grpc::ClientContext*, const Request&),
      const Request& request) const {
    grpc::ClientContext context;
    Prepare(request, &context);
    const auto reader = ((*analysis_).*method)(&context, request);
    Response message;
    if (!reader->Read(&message)) {
      const grpc::Status status = reader->Finish();
      if (!status.ok()) return ToAbsl(status);
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
    if (!status.ok()) return ToAbsl(status);
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
    if (!status.ok()) return ToAbsl(status);
    if (!last.has_end()) return absl::DataLossError("the answer has no end");
    return std::move(*last.mutable_end());
  }

  v1::Analysis::Stub& analysis() const { return *analysis_; }
  v1::Catalog::Stub& catalog() const { return *catalog_; }
  v1::Admin::Stub& admin() const { return *admin_; }

 private:
  template <typename Request>
  void Prepare(const Request& request, grpc::ClientContext* context) const {
    context->set_deadline(absl::ToChronoTime(absl::Now() + options_.deadline));
    AddRoutingMetadata(request, context);
  }

  // Readies a header for its chunks.
  template <typename Header>
  absl::StatusOr<ChunkAssembler> Expect(Header* header) const {
    const int64_t bytes = header->provenance().chunked_bytes();
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
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(
    const std::string& address, const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMilliseconds);
  const auto channel = grpc::CreateCustomChannel(
      address, grpc::InsecureChannelCredentials(), arguments);
  if (!channel->WaitForConnected(
          absl::ToChronoTime(absl::Now() + options.connect_timeout))) {
    return absl::UnavailableError(
        absl::StrCat("no server answers at ", address));
  }
  return std::unique_ptr<Client>(
      new Client(std::make_unique<Impl>(channel, options)));
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(
    const v1::TokenizeRequest& request) {
  return impl_->Call(impl_->analysis(), &v1::Analysis::Stub::Tokenize, request);
}

absl::StatusOr<v1::ActivationsResponse::Header> Client::GetActivations(
    const v1::ActivationsRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::GetActivations, request);
}

absl::StatusOr<v1::FeaturesResponse::Header> Client::GetFeatures(
    const v1::FeaturesRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::GetFeatures, request);
}

absl::StatusOr<v1::ReconstructResponse::Header> Client::Reconstruct(
    const v1::ReconstructRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::Reconstruct, request);
}

absl::StatusOr<v1::RunResponse::Header> Client::Run(
    const v1::RunRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::Run, request);
}

absl::StatusOr<v1::GenerateResponse::End> Client::Generate(
    const v1::GenerateRequest& request,
    const std::function<bool(const v1::GenerateResponse::Token&)>& token) {
  return impl_->Generate(request, token);
}

absl::StatusOr<v1::AblateResponse::Header> Client::Ablate(
    const v1::AblateRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::Ablate, request);
}

absl::StatusOr<v1::AblationTableResponse::Header> Client::TabulateAblations(
    const v1::AblationTableRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::TabulateAblations, request);
}

absl::StatusOr<v1::AttributeResponse::Header> Client::Attribute(
    const v1::AttributeRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::Attribute, request);
}

absl::StatusOr<v1::LogitLensResponse::Header> Client::LogitLens(
    const v1::LogitLensRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::LogitLens, request);
}

absl::StatusOr<v1::WeightResponse::Header> Client::GetWeight(
    const v1::WeightRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::GetWeight, request);
}

absl::StatusOr<v1::LatentWeightsResponse::Header> Client::GetLatentWeights(
    const v1::LatentWeightsRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::GetLatentWeights, request);
}

absl::StatusOr<v1::QualityResponse::Header> Client::GetQuality(
    const v1::QualityRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::GetQuality, request);
}

absl::StatusOr<v1::MeanActivationResponse::Header> Client::MeanActivation(
    const v1::MeanActivationRequest& request) {
  return impl_->Stream(&v1::Analysis::Stub::MeanActivation, request);
}

absl::StatusOr<v1::ListMeansResponse> Client::ListMeans(
    const v1::ListMeansRequest& request) {
  return impl_->Call(impl_->analysis(), &v1::Analysis::Stub::ListMeans,
                     request);
}

absl::StatusOr<v1::DeleteMeanResponse> Client::DeleteMean(
    const v1::DeleteMeanRequest& request) {
  return impl_->Call(impl_->analysis(), &v1::Analysis::Stub::DeleteMean,
                     request);
}

absl::StatusOr<v1::ListResponse> Client::List() {
  return impl_->Call(impl_->catalog(), &v1::Catalog::Stub::List,
                     v1::ListRequest());
}

absl::StatusOr<v1::DescribeResponse> Client::Describe(const std::string& name) {
  v1::DescribeRequest request;
  request.set_name(name);
  return impl_->Call(impl_->catalog(), &v1::Catalog::Stub::Describe, request);
}

absl::StatusOr<v1::DescribeResponse> Client::Load(const std::string& name,
                                                  v1::Processing processing) {
  v1::LoadRequest request;
  request.set_name(name);
  request.set_processing(processing);
  return impl_->Call(impl_->catalog(), &v1::Catalog::Stub::Load, request);
}

absl::StatusOr<v1::DescribeResponse> Client::Unload(const std::string& name) {
  v1::UnloadRequest request;
  request.set_name(name);
  return impl_->Call(impl_->catalog(), &v1::Catalog::Stub::Unload, request);
}

absl::StatusOr<v1::DescribeResponse> Client::SelfCheck(
    const std::string& name) {
  v1::SelfCheckRequest request;
  request.set_name(name);
  return impl_->Call(impl_->catalog(), &v1::Catalog::Stub::SelfCheck, request);
}

absl::StatusOr<v1::ServerInfo> Client::GetServerInfo() {
  return impl_->Call(impl_->admin(), &v1::Admin::Stub::GetServerInfo,
                     v1::GetServerInfoRequest());
}

absl::StatusOr<v1::CacheStatistics> Client::GetCacheStatistics() {
  return impl_->Call(impl_->admin(), &v1::Admin::Stub::GetCacheStatistics,
                     v1::GetCacheStatisticsRequest());
}

absl::StatusOr<v1::CacheStatistics> Client::ClearCache() {
  return impl_->Call(impl_->admin(), &v1::Admin::Stub::ClearCache,
                     v1::ClearCacheRequest());
}

}  // namespace cupola
