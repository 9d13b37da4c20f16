#ifndef CUPOLA_SERVER_ENGINE_REQUEST_RUNNER_H_
#define CUPOLA_SERVER_ENGINE_REQUEST_RUNNER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/engine/admission.h"
#include "server/engine/catalog.h"
#include "server/engine/device_worker.h"
#include "server/engine/executor.h"
#include "server/engine/flight.h"
#include "server/engine/observer.h"
#include "server/engine/question.h"
#include "server/engine/requests.h"
#include "storage/result_cache.h"

namespace cupola::engine {

// Answers questions: looks each sequence up in the cache, joins the requests
// that have those that missed computed already (flight.h), acquires the weights
// for the rest, queues them on the model's device, stores their records, and
// reports when the last one is there. Sequences are cached, shared and batched
// one by one, so a request that repeats half of another one computes only the
// other half. Any thread may call.
class RequestRunner {
 public:
  // All outlive the runner; `cache` may be null.
  RequestRunner(Catalog* catalog, storage::ResultCache* cache,
                std::map<std::string, std::unique_ptr<DeviceWorker>>* workers,
                const Admission::Options& admission, Executor* front,
                Observer* observer);

  // Reads the cache on the calling thread. `done` is called once, on the front
  // executor or on the calling thread.
  void Run(std::shared_ptr<const Question> question,
           const RequestContext& context,
           std::function<void(absl::StatusOr<Answered>)> done);

  // Of all devices together: what requests in flight may take, and what they
  // are given.
  int64_t BytesInFlight() const;
  int64_t BudgetBytes() const;

 private:
  struct InFlight;
  storage::CacheKey KeyOf(const Question& question,
                          const analysis::Sequence& sequence) const;
  const std::string& WorkerOf(const Question& question) const;
  // What the `missing` sequences would take.
  Estimate EstimateOf(const Question& question,
                      const std::vector<size_t>& missing,
                      const RequestContext& context) const;

  // Sequences of a request that it has computed itself, and who waits for them.
  struct Led;
  using LedPtr = std::shared_ptr<Led>;
  // Has the record of one sequence computed, or joins who does; Report hears
  // of it. What must be computed here is added to `led`.
  void Board(const std::shared_ptr<InFlight>& request, size_t sequence,
             Led& led);
  void Report(const std::shared_ptr<InFlight>& request, size_t sequence,
              absl::StatusOr<Landed> landed);
  void AcquireWeights(LedPtr led);
  void Enqueue(LedPtr led, ModelPtr model, const BoundDictionaries& bound);
  void Fail(LedPtr led, absl::Status status);

  Catalog* const catalog_;
  storage::ResultCache* const cache_;
  std::map<std::string, std::unique_ptr<DeviceWorker>>* const workers_;
  Executor* const front_;
  Observer* const observer_;
  std::map<std::string, std::string> numerics_;  // by device
  std::map<std::string, Admission> admission_;   // by worker
  Flights flights_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_REQUEST_RUNNER_H_
