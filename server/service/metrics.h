#ifndef CUPOLA_SERVER_SERVICE_METRICS_H_
#define CUPOLA_SERVER_SERVICE_METRICS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/device_memory.h"
#include "server/engine/observer.h"
#include "storage/result_cache.h"

namespace prometheus {
class Registry;
}

namespace cupola::service {

// What one finished request tells.
struct RequestTimes {
  double total = 0, lookup = 0, queue = 0, compute = 0, serialize = 0;
};

// State that is read when somebody asks for the metrics.
struct Gauges {
  int64_t queued = 0, queued_bulk = 0;
  int64_t bytes_in_flight = 0, budget_bytes = 0;
  storage::ResultCacheStatistics cache;
  std::vector<engine::DeviceMemory> devices;
};

// Every metric of the server, in Prometheus' text format. One prefix, cupola_;
// seconds and bytes; histograms and counters, whose rates are computed in
// PromQL:
//
//   requests_total{method,model,code}  request_seconds{method}
//   requests_in_flight                 lookup_seconds, queue_seconds,
//   prompt_tokens_total{method}        compute_seconds,
//   serialize_seconds{method} batch_tokens, batch_parts, batch_seconds{device}
//   queue_depth{priority} shared_parts_total inflight_bytes, budget_bytes
//   cache_lookups_total{tier,result}   cache_bytes{tier},
//   cache_capacity_bytes cache_inserts_total, cache_dropped_inserts_total,
//   cache_corrupt_records_total, cache_write_errors_total,
//   cache_evicted_age_seconds          device_memory_bytes{device},
//   device_memory_capacity_bytes{device}
//   resident_bytes{name,kind}          loads_total{name,result}
//   load_seconds{name}                 start_time_seconds,
//   build_info{version,torch}
//
// Label values come from the catalog and from fixed sets, never from requests:
// a model is named once it has been loaded, or failed to; a miss counts for the
// tier that is asked last, so that the look-ups of both tiers add up.
// Any thread may call; nothing blocks for longer than a mutex held for a
// look-up.
class Metrics final : public engine::Observer {
 public:
  Metrics(const std::string& version, const std::string& torch_version);
  ~Metrics() override;
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // `read` is called by Text; it must stay callable until replaced (by null).
  void SetGauges(std::function<Gauges()> read);

  void OnRequestStart();
  // `method` is an RPC's name, `code` CodeName's; `model` may be any text.
  // `computed`: the engine has answered, so the stage times mean something.
  void OnRequestEnd(const char* method, const std::string& model,
                    const char* code, bool computed, const RequestTimes& times,
                    int64_t tokens);
  int64_t requests() const { return requests_.load(); }
  absl::Duration Uptime() const;

  // engine::Observer.
  void OnBatch(absl::string_view device, int64_t tokens, int64_t parts,
               double seconds) override;
  void OnSharedFlight() override;
  void OnLoad(absl::string_view name, bool ok, double seconds) override;
  void OnResidentBytes(absl::string_view name, absl::string_view kind,
                       int64_t bytes) override;

  // The exposition, text format 0.0.4.
  std::string Text() const;

 private:
  struct Families;
  class GaugeCollector;
  // The name, where it is one that the engine has told of; else empty.
  std::string KnownName(const std::string& name) const;

  const absl::Time start_;
  std::atomic<int64_t> requests_{0};
  mutable absl::Mutex mu_;
  // At most kMaxNames: entries may come and go while the server runs.
  std::set<std::string> names_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<prometheus::Registry> registry_;
  std::unique_ptr<Families> families_;
  std::unique_ptr<GaugeCollector> gauges_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_METRICS_H_
