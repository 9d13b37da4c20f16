#include "client/cpp/client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/client_impl.h"
#include "client/cpp/metadata_value.h"
#include "grpcpp/grpcpp.h"

namespace cupola {
namespace {

// Answers are pure functions of their requests, so asking again is safe. Not
// so of jobs: submitting one again makes a second one.
constexpr char kServiceConfig[] = R"json({
  "methodConfig": [{
    "name": [{"service": "cupola.v1.Analysis"},
             {"service": "cupola.v1.Catalog"},
             {"service": "cupola.v1.Admin"},
             {"service": "cupola.v1.Jobs", "method": "List"},
             {"service": "cupola.v1.Jobs", "method": "Get"},
             {"service": "cupola.v1.Jobs", "method": "Watch"},
             {"service": "cupola.v1.Jobs", "method": "Cancel"},
             {"service": "cupola.v1.Jobs", "method": "GetJacobianTotals"}],
    "retryPolicy": {
      "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s",
      "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
})json";
constexpr int kKeepaliveMilliseconds = 60'000;

std::shared_ptr<grpc::ChannelCredentials> Credentials(
    const ClientOptions& options) {
  if (!options.tls.has_value()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = options.tls->roots;
  ssl.pem_cert_chain = options.tls->certificate;
  ssl.pem_private_key = options.tls->key;
  return grpc::SslCredentials(ssl);
}

v1::JobId JobId(const std::string& id) {
  v1::JobId message;
  message.set_id(id);
  return message;
}

}  // namespace

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(
    const std::string& address, const ClientOptions& options) {
  if (!options.token.empty() && !FitsMetadata(options.token)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the token, of ", options.token.size(),
        " bytes, cannot be sent; accepted: printable ASCII, as in a file's "
        "first line without its end, at most ",
        kMaxMetadataValue));
  }
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMilliseconds);
  if (options.tls.has_value() && !options.tls->server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls->server_name);
  }
  const auto channel =
      grpc::CreateCustomChannel(address, Credentials(options), arguments);
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
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::GetActivations,
                       request);
}

absl::StatusOr<v1::FeaturesResponse::Header> Client::GetFeatures(
    const v1::FeaturesRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::GetFeatures,
                       request);
}

absl::StatusOr<v1::ReconstructResponse::Header> Client::Reconstruct(
    const v1::ReconstructRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::Reconstruct,
                       request);
}

absl::StatusOr<v1::RunResponse::Header> Client::Run(
    const v1::RunRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::Run, request);
}

absl::StatusOr<v1::GenerateResponse::End> Client::Generate(
    const v1::GenerateRequest& request,
    const std::function<bool(const v1::GenerateResponse::Token&)>& token) {
  return impl_->Generate(request, token);
}

absl::StatusOr<v1::AblateResponse::Header> Client::Ablate(
    const v1::AblateRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::Ablate, request);
}

absl::StatusOr<v1::AblationTableResponse::Header> Client::TabulateAblations(
    const v1::AblationTableRequest& request) {
  return impl_->Stream(impl_->analysis(),
                       &v1::Analysis::Stub::TabulateAblations, request);
}

absl::StatusOr<v1::AttributeResponse::Header> Client::Attribute(
    const v1::AttributeRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::Attribute,
                       request);
}

absl::StatusOr<v1::LogitLensResponse::Header> Client::LogitLens(
    const v1::LogitLensRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::LogitLens,
                       request);
}

absl::StatusOr<v1::WeightResponse::Header> Client::GetWeight(
    const v1::WeightRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::GetWeight,
                       request);
}

absl::StatusOr<v1::LatentWeightsResponse::Header> Client::GetLatentWeights(
    const v1::LatentWeightsRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::GetLatentWeights,
                       request);
}

absl::StatusOr<v1::QualityResponse::Header> Client::GetQuality(
    const v1::QualityRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::GetQuality,
                       request);
}

absl::StatusOr<v1::MeanActivationResponse::Header> Client::MeanActivation(
    const v1::MeanActivationRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::MeanActivation,
                       request);
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

absl::StatusOr<v1::JacobianResponse::Header> Client::GetJacobian(
    const v1::JacobianRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::GetJacobian,
                       request);
}

absl::StatusOr<v1::DirectionAblationResponse::Header> Client::AblateDirections(
    const v1::DirectionAblationRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::AblateDirections,
                       request);
}

absl::StatusOr<v1::SweepResponse::Header> Client::Sweep(
    const v1::SweepRequest& request) {
  return impl_->Stream(impl_->analysis(), &v1::Analysis::Stub::Sweep, request);
}

absl::StatusOr<v1::Job> Client::AccumulateJacobian(
    const v1::AccumulateJacobianRequest& request) {
  return impl_->Call(impl_->jobs(), &v1::Jobs::Stub::AccumulateJacobian,
                     request);
}

absl::StatusOr<v1::ListJobsResponse> Client::ListJobs() {
  return impl_->Call(impl_->jobs(), &v1::Jobs::Stub::List,
                     v1::ListJobsRequest());
}

absl::StatusOr<v1::Job> Client::GetJob(const std::string& id) {
  return impl_->Call(impl_->jobs(), &v1::Jobs::Stub::Get, JobId(id));
}

absl::StatusOr<v1::Job> Client::WatchJob(
    const std::string& id, const std::function<bool(const v1::Job&)>& news) {
  return impl_->WatchJob(JobId(id), news);
}

absl::StatusOr<v1::Job> Client::CancelJob(const std::string& id) {
  return impl_->Call(impl_->jobs(), &v1::Jobs::Stub::Cancel, JobId(id));
}

absl::StatusOr<v1::Job> Client::ResumeJob(const std::string& id) {
  return impl_->Call(impl_->jobs(), &v1::Jobs::Stub::Resume, JobId(id));
}

absl::StatusOr<v1::DeleteJobResponse> Client::DeleteJob(const std::string& id) {
  return impl_->Call(impl_->jobs(), &v1::Jobs::Stub::Delete, JobId(id));
}

absl::StatusOr<v1::JacobianTotalsResponse::Header> Client::GetJacobianTotals(
    const v1::JacobianTotalsRequest& request) {
  return impl_->Stream(impl_->jobs(), &v1::Jobs::Stub::GetJacobianTotals,
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
