#ifndef CUPOLA_SERVER_ENGINE_STORE_ACTIVATIONS_JOB_H_
#define CUPOLA_SERVER_ENGINE_STORE_ACTIVATIONS_JOB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/engine/job_kind.h"

// The job kind "store_activations": fills a store (activation_stores.h) with
// the active latents of a corpus. What is there of the store is not computed
// again, whoever has put it there. The job's state tells which chunks it has
// seen to; they are in the store, and its shards share one.

namespace cupola::engine {

inline constexpr char kStoreActivations[] = "store_activations";

struct StoreActivationsRequest {
  std::string dictionary;
  std::optional<Prompts> prompts;  // exactly one of the two
  std::optional<DatasetRows> rows;
  Positions positions;
  std::optional<model::Processing> processing;
  float min_activation = 0;
  int64_t chunk_tokens = 0;  // 0: a good number
};

// Of a store: tokens [first, first + count).
struct ReadStoreRequest {
  std::string key;
  int64_t first = 0, count = 0;  // 0: all from first on
};
struct ReadStoreAnswer {
  StoreInfo info;
  int64_t first = 0;
  StoredTokens tokens;
};

// The errors are AskFeatures' and ResolveRows'.
absl::StatusOr<JobSpecification> Specify(const StoreActivationsRequest& request,
                                         const JobHost& host,
                                         const RequestContext& context);

// A state whose chunks are in no store here, because it was deleted or the
// state is another server's, is DATA_LOSS.
absl::StatusOr<std::unique_ptr<JobWork>> MakeStoreActivations(
    const std::string& specification, const JobHost& host,
    const RequestContext& context);

// FAILED_PRECONDITION: the store is not complete; INVALID_ARGUMENT names the
// field; RESOURCE_EXHAUSTED: ask for fewer.
absl::StatusOr<ReadStoreAnswer> ReadStore(const ReadStoreRequest& request,
                                          const Limits& limits,
                                          ActivationStores* stores);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_STORE_ACTIVATIONS_JOB_H_
