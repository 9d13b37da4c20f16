#include "server/service/metrics.h"

#include <mutex>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "prometheus/collectable.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"

namespace cupola::service {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

constexpr size_t kMaxNames = 4096;
// From a cache hit (a fraction of a millisecond) to a long job's chunk.
const std::vector<double> kSecondsBuckets = {
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1,    0.25,    0.5,    1,     2.5,    5,     10,   30,    60};
const std::vector<double> kCountBuckets = {
    1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

Family<Counter>& AddCounter(prometheus::Registry& registry, const char* name,
                            const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

Family<Gauge>& AddGauge(prometheus::Registry& registry, const char* name,
                        const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}

Family<Histogram>& AddHistogram(prometheus::Registry& registry,
                                const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

prometheus::MetricFamily Sample(const char* name, const char* help,
                                prometheus::MetricType type) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

void AddValue(prometheus::MetricFamily& family, double value,
              std::vector<prometheus::ClientMetric::Label> labels = {}) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  // The serializer reads the member that the family's type names.
  metric.gauge.value = value;
  metric.counter.value = value;
  family.metric.push_back(std::move(metric));
}

}  // namespace

struct Metrics::Families {
  explicit Families(prometheus::Registry& r)
      : requests(
            AddCounter(r, "cupola_requests_total",
                       "Finished requests by method, model and status code.")),
        tokens(AddCounter(r, "cupola_prompt_tokens_total",
                          "Tokens of the prompts of answered requests.")),
        shared_parts(
            AddCounter(r, "cupola_shared_parts_total",
                       "Prompts whose answer another request was already "
                       "having computed.")
                .Add({})),
        loads(AddCounter(r, "cupola_loads_total",
                         "Loads of models and dictionaries by result.")),
        in_flight(AddGauge(r, "cupola_requests_in_flight",
                           "Requests that have arrived and not finished.")),
        resident(AddGauge(r, "cupola_resident_bytes",
                          "Bytes of every copy of an entry's weights.")),
        start_time(AddGauge(r, "cupola_start_time_seconds",
                            "Unix time of the server's start.")),
        build(AddGauge(r, "cupola_build_info", "Always 1; see the labels.")),
        request_seconds(AddHistogram(r, "cupola_request_seconds",
                                     "From arrival to the last byte.")),
        lookup_seconds(
            AddHistogram(r, "cupola_lookup_seconds",
                         "Tokenizing, hashing and reading the cache.")),
        queue_seconds(
            AddHistogram(r, "cupola_queue_seconds", "Waiting for the device.")),
        compute_seconds(
            AddHistogram(r, "cupola_compute_seconds", "On the device.")),
        serialize_seconds(AddHistogram(
            r, "cupola_serialize_seconds",
            "From the engine's answer to its last byte's hand-over.")),
        batch_tokens(AddHistogram(r, "cupola_batch_tokens",
                                  "Tokens of a device batch, no padding.")),
        batch_parts(AddHistogram(r, "cupola_batch_parts",
                                 "Prompts of a device batch.")),
        batch_seconds(AddHistogram(r, "cupola_batch_seconds",
                                   "A device batch's duration.")),
        load_seconds(AddHistogram(r, "cupola_load_seconds",
                                  "Time to load a model or dictionary.")) {}

  Family<Counter>&requests, &tokens;
  Counter& shared_parts;
  Family<Counter>& loads;
  Family<Gauge>&in_flight, &resident, &start_time, &build;
  Family<Histogram>&request_seconds, &lookup_seconds, &queue_seconds,
      &compute_seconds, &serialize_seconds, &batch_tokens, &batch_parts,
      &batch_seconds, &load_seconds;
};

// Reads the engine's state at every collection.
class Metrics::GaugeCollector final : public prometheus::Collectable {
 public:
  void Set(std::function<Gauges()> read) {
    std::lock_guard<std::mutex> lock(mutex_);
    read_ = std::move(read);
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    Gauges now;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!read_) return {};
      now = read_();
    }
    using prometheus::MetricType;
    std::vector<prometheus::MetricFamily> families;
    const auto add = [&](const char* name, const char* help, MetricType type,
                         double value) {
      families.push_back(Sample(name, help, type));
      AddValue(families.back(), value);
    };
    families.push_back(Sample("cupola_queue_depth",
                              "Parts that wait for a device, by priority.",
                              MetricType::Gauge));
    AddValue(families.back(), now.queued, {{"priority", "interactive"}});
    AddValue(families.back(), now.queued_bulk, {{"priority", "bulk"}});
    families.push_back(Sample("cupola_cache_lookups_total",
                              "Look-ups in the result cache, per prompt.",
                              MetricType::Counter));
    AddValue(families.back(), now.cache.memory_hits,
             {{"result", "hit"}, {"tier", "memory"}});
    AddValue(families.back(), now.cache.hits - now.cache.memory_hits,
             {{"result", "hit"}, {"tier", "disk"}});
    AddValue(families.back(), now.cache.misses,
             {{"result", "miss"}, {"tier", "disk"}});
    add("cupola_cache_evicted_age_seconds",
        "How old the last records that made room were; 0: none have.",
        MetricType::Gauge, now.cache.evicted_age_seconds);
    add("cupola_inflight_bytes",
        "What requests in flight may take, by their own estimates.",
        MetricType::Gauge, now.bytes_in_flight);
    add("cupola_budget_bytes", "What they may take together.",
        MetricType::Gauge, now.budget_bytes);
    add("cupola_cache_capacity_bytes", "The result cache's cap on disk.",
        MetricType::Gauge, now.cache.capacity_bytes);
    families.push_back(Sample("cupola_cache_bytes",
                              "Bytes the result cache holds, by tier.",
                              MetricType::Gauge));
    AddValue(families.back(), now.cache.disk_bytes, {{"tier", "disk"}});
    AddValue(families.back(), now.cache.memory_bytes, {{"tier", "memory"}});
    add("cupola_cache_inserts_total", "Records put into the result cache.",
        MetricType::Counter, now.cache.inserts);
    add("cupola_cache_dropped_inserts_total",
        "Records too large, or given up because the queue was full.",
        MetricType::Counter, now.cache.dropped_inserts);
    add("cupola_cache_corrupt_records_total",
        "Records that failed their checksum or key echo.", MetricType::Counter,
        now.cache.corrupt_records);
    add("cupola_cache_write_errors_total", "Failed writes to the cache.",
        MetricType::Counter, now.cache.write_errors);
    families.push_back(Sample("cupola_device_memory_bytes",
                              "Bytes in use on a device; of this process "
                              "alone, where it is the CPU.",
                              MetricType::Gauge));
    families.push_back(Sample("cupola_device_memory_capacity_bytes",
                              "Bytes of a device.", MetricType::Gauge));
    for (const engine::DeviceMemory& memory : now.devices) {
      const auto with_device = [&](prometheus::MetricFamily& family,
                                   int64_t bytes) {
        AddValue(family, static_cast<double>(bytes),
                 {{"device", memory.device}});
      };
      with_device(families[families.size() - 2], memory.used_bytes);
      with_device(families.back(), memory.capacity_bytes);
    }
    return families;
  }

 private:
  mutable std::mutex mutex_;
  std::function<Gauges()> read_;
};

Metrics::Metrics(const std::string& version, const std::string& torch_version)
    : start_(absl::Now()),
      registry_(std::make_unique<prometheus::Registry>()),
      families_(std::make_unique<Families>(*registry_)),
      gauges_(std::make_unique<GaugeCollector>()) {
  families_->start_time.Add({}).Set(
      absl::ToDoubleSeconds(start_ - absl::UnixEpoch()));
  families_->build.Add({{"version", version}, {"torch", torch_version}}).Set(1);
  // Present from the start, so that rates are defined at the first event.
  families_->in_flight.Add({});
}

Metrics::~Metrics() = default;

void Metrics::SetGauges(std::function<Gauges()> read) {
  gauges_->Set(std::move(read));
}

void Metrics::OnRequestStart() {
  requests_.fetch_add(1);
  families_->in_flight.Add({}).Increment();
}

std::string Metrics::KnownName(const std::string& name) const {
  absl::MutexLock lock(&mu_);
  return names_.contains(name) ? name : "";
}

void Metrics::OnRequestEnd(const char* method, const std::string& model,
                           const char* code, bool computed,
                           const RequestTimes& times, int64_t tokens) {
  const prometheus::Labels labels = {{"method", method}};
  families_->in_flight.Add({}).Decrement();
  families_->requests
      .Add({{"method", method}, {"model", KnownName(model)}, {"code", code}})
      .Increment();
  families_->request_seconds.Add(labels, kSecondsBuckets).Observe(times.total);
  if (!computed) return;
  families_->lookup_seconds.Add(labels, kSecondsBuckets).Observe(times.lookup);
  families_->queue_seconds.Add(labels, kSecondsBuckets).Observe(times.queue);
  families_->compute_seconds.Add(labels, kSecondsBuckets)
      .Observe(times.compute);
  families_->serialize_seconds.Add(labels, kSecondsBuckets)
      .Observe(times.serialize);
  families_->tokens.Add(labels).Increment(static_cast<double>(tokens));
}

absl::Duration Metrics::Uptime() const { return absl::Now() - start_; }

void Metrics::OnBatch(absl::string_view device, int64_t tokens, int64_t parts,
                      double seconds) {
  const prometheus::Labels labels = {{"device", std::string(device)}};
  families_->batch_tokens.Add(labels, kCountBuckets)
      .Observe(static_cast<double>(tokens));
  families_->batch_parts.Add(labels, kCountBuckets)
      .Observe(static_cast<double>(parts));
  families_->batch_seconds.Add(labels, kSecondsBuckets).Observe(seconds);
}

void Metrics::OnSharedFlight() { families_->shared_parts.Increment(); }

void Metrics::OnLoad(absl::string_view name, bool ok, double seconds) {
  {
    absl::MutexLock lock(&mu_);
    if (names_.size() < kMaxNames) names_.insert(std::string(name));
  }
  families_->loads
      .Add({{"name", std::string(name)}, {"result", ok ? "ok" : "failed"}})
      .Increment();
  if (!ok) return;
  families_->load_seconds.Add({{"name", std::string(name)}}, kSecondsBuckets)
      .Observe(seconds);
}

void Metrics::OnResidentBytes(absl::string_view name, absl::string_view kind,
                              int64_t bytes) {
  families_->resident
      .Add({{"name", std::string(name)}, {"kind", std::string(kind)}})
      .Set(static_cast<double>(bytes));
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  for (prometheus::MetricFamily& family : gauges_->Collect()) {
    families.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace cupola::service
