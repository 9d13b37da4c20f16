#ifndef CUPOLA_CLIENT_CPP_CLIENT_H_
#define CUPOLA_CLIENT_CPP_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cupola/v1/admin.pb.h"
#include "cupola/v1/analysis.pb.h"
#include "cupola/v1/catalog.pb.h"
#include "cupola/v1/directions.pb.h"
#include "cupola/v1/jacobian.pb.h"
#include "cupola/v1/jobs.pb.h"

namespace cupola {

// PEM texts, not files.
struct TlsOptions {
  std::string roots;  // who may sign the server's certificate; empty: those
                      // that the system trusts
  std::string certificate, key;  // the client's own, where the server asks
  std::string server_name;       // that the certificate must be of, where it is
                                 // not the address's
};

struct ClientOptions {
  // Presented with every call. Without `tls` others on the way can read it.
  std::string token;
  std::optional<TlsOptions> tls;  // unset: no encryption
  // Of each call, from its start.
  absl::Duration deadline = absl::Minutes(5);
  // Connect gives up after this.
  absl::Duration connect_timeout = absl::Seconds(10);
  // The largest single message; streamed answers may be larger.
  int max_message_bytes = 64 << 20;
  // The largest streamed answer.
  int64_t max_answer_bytes = 4LL << 30;
};

// A connection to a Cupola server. Requests and answers are the messages of
// cupola.v1; a streamed answer comes back whole, its chunks put into its
// tensors.
//
// Every call carries the metadata `cupola-model` (the name it asks about) and
// `cupola-key` (a hash of the request), by which a proxy can send equal
// requests to the same server. A call that finds the server away (UNAVAILABLE)
// is repeated up to four times within its deadline: every operation may be,
// except submitting, resuming and deleting jobs, which are sent once.
//
// Errors are the server's (see the service's own comments), and DATA_LOSS when
// a stream does not add up. Any thread may call; calls run at the same time.
class Client {
 public:
  // `address`: "HOST:PORT". UNAVAILABLE when no server answers in time;
  // INVALID_ARGUMENT: a token that is not printable ASCII, or too long.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(
      const std::string& address, const ClientOptions& options = {});
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  absl::StatusOr<v1::TokenizeResponse> Tokenize(
      const v1::TokenizeRequest& request);
  absl::StatusOr<v1::ActivationsResponse::Header> GetActivations(
      const v1::ActivationsRequest& request);
  absl::StatusOr<v1::FeaturesResponse::Header> GetFeatures(
      const v1::FeaturesRequest& request);
  absl::StatusOr<v1::ReconstructResponse::Header> Reconstruct(
      const v1::ReconstructRequest& request);

  absl::StatusOr<v1::RunResponse::Header> Run(const v1::RunRequest& request);
  // Calls `token` with every token as it comes, on the calling thread; false
  // stops the server's work, and the answer is CANCELLED.
  absl::StatusOr<v1::GenerateResponse::End> Generate(
      const v1::GenerateRequest& request,
      const std::function<bool(const v1::GenerateResponse::Token&)>& token);
  absl::StatusOr<v1::AblateResponse::Header> Ablate(
      const v1::AblateRequest& request);
  absl::StatusOr<v1::AblationTableResponse::Header> TabulateAblations(
      const v1::AblationTableRequest& request);
  absl::StatusOr<v1::AttributeResponse::Header> Attribute(
      const v1::AttributeRequest& request);
  absl::StatusOr<v1::LogitLensResponse::Header> LogitLens(
      const v1::LogitLensRequest& request);
  absl::StatusOr<v1::WeightResponse::Header> GetWeight(
      const v1::WeightRequest& request);
  absl::StatusOr<v1::LatentWeightsResponse::Header> GetLatentWeights(
      const v1::LatentWeightsRequest& request);
  absl::StatusOr<v1::QualityResponse::Header> GetQuality(
      const v1::QualityRequest& request);
  absl::StatusOr<v1::MeanActivationResponse::Header> MeanActivation(
      const v1::MeanActivationRequest& request);
  absl::StatusOr<v1::ListMeansResponse> ListMeans(
      const v1::ListMeansRequest& request);
  absl::StatusOr<v1::DeleteMeanResponse> DeleteMean(
      const v1::DeleteMeanRequest& request);

  // Between two dictionaries around an MLP.
  absl::StatusOr<v1::JacobianResponse::Header> GetJacobian(
      const v1::JacobianRequest& request);
  absl::StatusOr<v1::DirectionAblationResponse::Header> AblateDirections(
      const v1::DirectionAblationRequest& request);
  absl::StatusOr<v1::SweepResponse::Header> Sweep(
      const v1::SweepRequest& request);

  // Jobs: submitted, then known by their ids.
  absl::StatusOr<v1::Job> AccumulateJacobian(
      const v1::AccumulateJacobianRequest& request);
  absl::StatusOr<v1::ListJobsResponse> ListJobs();
  absl::StatusOr<v1::Job> GetJob(const std::string& id);
  // Calls `news` with the job whenever it gets on, on the calling thread, until
  // it has ended or `news` returns false; the job as it was last. The call's
  // deadline holds: DEADLINE_EXCEEDED says nothing about the job.
  absl::StatusOr<v1::Job> WatchJob(
      const std::string& id, const std::function<bool(const v1::Job&)>& news);
  absl::StatusOr<v1::Job> CancelJob(const std::string& id);
  absl::StatusOr<v1::Job> ResumeJob(const std::string& id);
  absl::StatusOr<v1::DeleteJobResponse> DeleteJob(const std::string& id);
  absl::StatusOr<v1::JacobianTotalsResponse::Header> GetJacobianTotals(
      const v1::JacobianTotalsRequest& request);

  absl::StatusOr<v1::ListResponse> List();
  absl::StatusOr<v1::DescribeResponse> Describe(const std::string& name);
  absl::StatusOr<v1::DescribeResponse> Load(
      const std::string& name,
      v1::Processing processing = v1::PROCESSING_UNSPECIFIED);
  absl::StatusOr<v1::DescribeResponse> Unload(const std::string& name);
  absl::StatusOr<v1::DescribeResponse> SelfCheck(const std::string& name);

  absl::StatusOr<v1::ServerInfo> GetServerInfo();
  absl::StatusOr<v1::CacheStatistics> GetCacheStatistics();
  absl::StatusOr<v1::CacheStatistics> ClearCache();

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cupola

#endif  // CUPOLA_CLIENT_CPP_CLIENT_H_
