#ifndef CUPOLA_SERVER_ENGINE_REQUEST_RUNNER_H_
#define CUPOLA_SERVER_ENGINE_REQUEST_RUNNER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/engine/catalog.h"
#include "server/engine/device_worker.h"
#include "server/engine/executor.h"
#include "server/engine/observer.h"
#include "server/engine/question.h"
#include "server/engine/requests.h"
#include "storage/result_cache.h"

namespace cupola::engine {

// Answers questions: looks each sequence up in the cache, acquires the weights
// for those that missed, queues them on the model's device, stores their
// records, and reports when the last one is there. Sequences are cached and
// batched one by one, so a request that repeats half of another one computes
// only the other half. Any thread may call.
class RequestRunner {
 public:
  // All outlive the runner; `cache` may be null.
  RequestRunner(Catalog* catalog, storage::ResultCache* cache,
                std::map<std::string, std::unique_ptr<DeviceWorker>>* workers,
                Executor* front, Observer* observer);

  // Reads the cache on the calling thread. `done` is called once, on the front
  // executor or on the calling thread.
  void Run(std::shared_ptr<const Question> question,
           const RequestContext& context,
           std::function<void(absl::StatusOr<Answered>)> done);

 private:
  struct InFlight;
  storage::CacheKey KeyOf(const Question& question,
                          const analysis::Sequence& sequence) const;
  void AcquireWeights(std::shared_ptr<InFlight> request);
  void AcquireOthers(std::shared_ptr<InFlight> request, ModelPtr model,
                     BoundDictionaries bound);
  void Enqueue(std::shared_ptr<InFlight> request, ModelPtr model,
               const BoundDictionaries& bound);
  void Fail(std::shared_ptr<InFlight> request, absl::Status status);

  Catalog* const catalog_;
  storage::ResultCache* const cache_;
  std::map<std::string, std::unique_ptr<DeviceWorker>>* const workers_;
  Executor* const front_;
  Observer* const observer_;
  std::map<std::string, std::string> numerics_;  // by device
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_REQUEST_RUNNER_H_
