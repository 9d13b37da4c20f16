#ifndef CUPOLA_SERVER_ENGINE_ENGINE_H_
#define CUPOLA_SERVER_ENGINE_ENGINE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/engine/ablation_table.h"
#include "server/engine/accumulate_jacobian.h"
#include "server/engine/attribution_requests.h"
#include "server/engine/catalog_types.h"
#include "server/engine/coactivation_job.h"
#include "server/engine/datasets.h"
#include "server/engine/direction_requests.h"
#include "server/engine/direction_statistics_job.h"
#include "server/engine/feature_statistics_job.h"
#include "server/engine/generate_requests.h"
#include "server/engine/jacobian_requests.h"
#include "server/engine/jobs.h"
#include "server/engine/match_features_job.h"
#include "server/engine/mean_requests.h"
#include "server/engine/observer.h"
#include "server/engine/requests.h"
#include "server/engine/run_requests.h"
#include "server/engine/store_activations_job.h"
#include "server/engine/weight_requests.h"
#include "storage/result_cache.h"

namespace cupola::engine {

struct EngineOptions {
  CatalogSpec catalog;
  // "auto" (all GPUs, else the CPU), "cpu", "cuda:0", or several, with commas.
  std::string device = "auto";
  // Weights that each device may hold; 0: no limit. See residency_policy.h.
  int64_t device_memory = 0;
  absl::Duration min_residency = absl::Seconds(1);
  // Page-locked copies of GPUs' dictionaries; 0: none. See host_copies.h.
  int64_t host_memory = 8LL << 30;
  // Empty directory: no cache.
  storage::ResultCacheOptions cache;
  int64_t max_queued_prompts = 1 << 16;  // per device; jobs' by themselves
  int64_t max_queued_prompts_per_client = 1 << 15;
  int64_t max_tokens_per_request = 1 << 18;
  int64_t max_answer_bytes = 2LL << 30;
  // What requests in flight on a device may take together, by their own
  // estimates; one that alone may take more is refused.
  int64_t request_bytes = 8LL << 30;
  int64_t batch_tokens = 4096;  // a device batch's budget
  // Constants kept between questions about two dictionaries around an MLP.
  int64_t product_bytes = 2LL << 30;
  // Jobs of an earlier process wait for jobs().Begin(): until the catalog has
  // all that they name.
  bool hold_jobs = false;
  // A job saves its state when so much time has gone by.
  absl::Duration job_checkpoint = absl::Seconds(30);
  // Of datasets, of the states of jobs, and of stored activations; and how long
  // they are kept.
  int64_t dataset_bytes = 64LL << 30, job_bytes = 64LL << 30;
  int64_t store_bytes = 64LL << 30;
  int64_t job_memory = 16LL << 30;  // of jobs' states together
  absl::Duration dataset_keep = absl::InfiniteDuration();
  absl::Duration job_keep = absl::InfiniteDuration();
  absl::Duration store_keep = absl::InfiniteDuration();
  int front_threads = 4;   // tokenizing, hashing, cache reads
  bool self_check = true;  // measure dictionaries at load
};

// Parts that wait for devices.
struct QueueDepths {
  int64_t interactive = 0, bulk = 0;
};

// The request path below the transport: validate, look up, queue, compute,
// answer. Every operation returns at once and calls `done` exactly once, from a
// thread of the engine's own; `done` must not block. Errors are absl::Status
// with the codes of design: INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED,
// FAILED_PRECONDITION (the entry failed to load), UNAVAILABLE (draining),
// DEADLINE_EXCEEDED, CANCELLED.
class Engine {
 public:
  template <typename Answer>
  using Done = std::function<void(absl::StatusOr<Answer>)>;

  // Starts loading the catalog in the background. Fails only on an unknown
  // device: what the catalog contradicts itself about (duplicate names, unknown
  // models) is an entry that fails. `observer` outlives the engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const EngineOptions& options, Observer* observer);
  ~Engine();  // drains for zero seconds

  void Tokenize(TokenizeRequest, RequestContext, Done<TokenizeAnswer>);
  void GetActivations(ActivationsRequest, RequestContext,
                      Done<ActivationsAnswer>);
  void GetFeatures(FeaturesRequest, RequestContext, Done<FeaturesAnswer>);
  void Reconstruct(ReconstructRequest, RequestContext, Done<ReconstructAnswer>);
  void Run(RunRequest, RequestContext, Done<RunAnswer>);
  // Tells the request's sink of each token, then calls done.
  void Generate(GenerateRequest, RequestContext, Done<GenerateAnswer>);
  void Ablate(AblateRequest, RequestContext, Done<AblateAnswer>);
  void TabulateAblations(AblationTableRequest, RequestContext,
                         Done<AblationTableAnswer>);
  void GetWeight(WeightRequest, RequestContext, Done<WeightAnswer>);
  void GetLatentWeights(LatentWeightsRequest, RequestContext,
                        Done<LatentWeightsAnswer>);
  void Attribute(AttributeRequest, RequestContext, Done<AttributeAnswer>);
  void LogitLens(LogitLensRequest, RequestContext, Done<LogitLensAnswer>);
  void GetQuality(QualityRequest, RequestContext, Done<QualityAnswer>);
  // Stored before it is answered, where it is to be.
  void MeanActivation(MeanActivationRequest, RequestContext,
                      Done<MeanActivationAnswer>);
  void ListMeans(ListMeansRequest, RequestContext, Done<ListMeansAnswer>);
  void DeleteMean(DeleteMeanRequest, RequestContext, Done<DeleteMeanAnswer>);

  void GetJacobian(JacobianRequest, RequestContext, Done<JacobianAnswer>);
  void AblateDirections(DirectionAblationRequest, RequestContext,
                        Done<DirectionAblationAnswer>);
  void Sweep(SweepRequest, RequestContext, Done<SweepAnswer>);

  // Uploads, reads and deletes: they wait for the disk.
  Datasets& datasets();
  // May take minutes, and a few of these are done at a time.
  void TokenizeDataset(TokenizeDatasetRequest, RequestContext,
                       Done<TokenizedInfo>);
  void ReadDataset(ReadDatasetRequest, RequestContext, Done<ReadDatasetAnswer>);

  // Submit jobs (accumulate_jacobian.h, feature_statistics_job.h,
  // match_features_job.h, coactivation_job.h, direction_statistics_job.h,
  // store_activations_job.h); done
  // when they are on the disk.
  void AccumulateJacobian(AccumulateJacobianRequest, JobOptions, RequestContext,
                          Done<JobInfo>);
  void ComputeFeatureStatistics(FeatureStatisticsRequest, JobOptions,
                                RequestContext, Done<JobInfo>);
  void MatchFeatures(MatchFeaturesRequest, JobOptions, RequestContext,
                     Done<JobInfo>);
  void CountCoactivation(CoactivationRequest, JobOptions, RequestContext,
                         Done<JobInfo>);
  void StoreActivations(StoreActivationsRequest, JobOptions, RequestContext,
                        Done<JobInfo>);
  void ComputeDirectionStatistics(DirectionStatisticsRequest, JobOptions,
                                  RequestContext, Done<JobInfo>);
  // See Jobs::Merge.
  void MergeShards(std::vector<ReceivedShard>, JobOptions, RequestContext,
                   Done<JobInfo>);
  void QueryJacobianTotals(JacobianTotalsRequest, RequestContext,
                           Done<JacobianTotalsAnswer>);
  void QueryFeatureStatistics(FeatureStatisticsQuery, RequestContext,
                              Done<FeatureStatisticsAnswer>);
  void QueryFeatureMatching(FeatureMatchingQuery, RequestContext,
                            Done<FeatureMatchingAnswer>);
  void QueryCoactivation(CoactivationQuery, RequestContext,
                         Done<CoactivationAnswer>);
  void ReadStore(ReadStoreRequest, RequestContext, Done<ReadStoreAnswer>);
  void QueryDirectionStatistics(DirectionStatisticsQuery, RequestContext,
                                Done<DirectionStatisticsAnswer>);
  Jobs& jobs();
  ActivationStores& stores();

  // Catalog.
  std::vector<ModelStatus> Models() const;
  std::vector<DictionaryStatus> Dictionaries() const;
  // NOT_FOUND, with the names there are.
  absl::StatusOr<EntryStatus> Describe(const std::string& name) const;
  // Done when the entry is resident; FAILED_PRECONDITION with the reason.
  void Load(const std::string& name, std::optional<model::Processing>,
            RequestContext, Done<std::string>);
  absl::Status Unload(const std::string& name);
  // Serves another catalog. Entries that it says the same of stay as they are,
  // loaded or not; new ones, and those of which it says something else, are
  // opened, and loaded while there is room; the others leave. Requests on their
  // way end with what they have begun with. What the catalog contradicts itself
  // about fails, and the rest is served; INVALID_ARGUMENT, and the old one
  // stays, where that is the entry `whole`.
  absl::Status SetCatalog(const CatalogSpec& catalog,
                          const std::string& whole = "");
  // Reads a dictionary's files as a load would: INVALID_ARGUMENT with what is
  // certain to fail at every load. Blocks for the disk.
  absl::Status CheckFiles(const DictionarySpec& spec) const;
  void SelfCheck(const std::string& name, RequestContext,
                 Done<DictionaryStatus>);
  // Whether every entry of the file has been loaded or has failed.
  bool CatalogReady() const;

  storage::ResultCacheStatistics CacheStatistics() const;
  // Empty when the cache works, else why there is none.
  std::string CacheDisabledReason() const;
  // Where a cache that could not be opened was moved; empty if none was.
  std::string CacheMovedAsideTo() const;
  void ClearCache();

  QueueDepths QueueDepth() const;  // of all devices
  // What requests in flight may take, by their estimates, and their budget.
  int64_t BytesInFlight() const;
  int64_t BudgetBytes() const;
  std::vector<std::string> Devices() const;
  std::vector<WeightMemory> Memory() const;
  const EngineOptions& options() const;

  // For tests: while held, what is queued waits, so that what a batch holds
  // does not depend on timing.
  void HoldForTesting(bool held);

  // Refuses new requests with UNAVAILABLE, waits for those in flight until
  // `deadline`, ends the rest with UNAVAILABLE and flushes the cache.
  void Drain(absl::Time deadline);

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ENGINE_H_
