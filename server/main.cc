// cupola_server: from a command line to a running server, and to its end.

#include <atomic>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/engine/device_memory.h"
#include "server/engine/engine.h"
#include "server/engine/file_stamp.h"
#include "server/flags.h"
#include "server/http/http_server.h"
#include "server/service/access.h"
#include "server/service/catalog_file.h"
#include "server/service/log.h"
#include "server/service/metrics.h"
#include "server/service/registry.h"
#include "server/service/server.h"
#include "server/tls/tls_files.h"
#include "torch/headeronly/version.h"

// Read by jemalloc, where the server is linked with it. Activations come and go
// by megabytes: pages that stay for the next pass, in large pieces, cost no
// page faults, and those are a third of a short pass. What nobody has reused
// for ten seconds goes back to the system.
extern "C" const char* malloc_conf;
const char* malloc_conf =
    "thp:always,dirty_decay_ms:10000,muzzy_decay_ms:0,oversize_threshold:0,"
    "background_thread:true";

namespace cupola {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

int Complain(const absl::Status& status, int code) {
  std::fprintf(stderr, "cupola_server: %s\n",
               std::string(status.message()).c_str());
  return code;
}

engine::EngineOptions ToEngineOptions(const Flags& flags,
                                      engine::CatalogSpec catalog) {
  engine::EngineOptions options;
  options.catalog = std::move(catalog);
  options.device = flags.device;
  options.device_memory = flags.device_memory;
  options.min_residency = absl::Seconds(flags.min_residency_seconds);
  options.host_memory = flags.host_memory;
  options.cache.directory = flags.cache_dir;
  options.cache.capacity_bytes = flags.cache_bytes;
  options.cache.memory_bytes = flags.cache_memory_bytes;
  options.request_bytes = flags.request_memory;
  options.max_queued_prompts = flags.max_queued_prompts;
  options.max_queued_prompts_per_client = flags.max_queued_prompts_per_client;
  options.max_tokens_per_request = flags.max_tokens_per_request;
  options.batch_tokens = flags.batch_tokens;
  options.product_bytes = flags.product_bytes;
  options.front_threads = static_cast<int>(flags.front_threads);
  options.self_check = flags.self_check;
  options.hold_jobs = true;
  options.job_checkpoint = absl::Seconds(flags.job_checkpoint_seconds);
  const auto keep = [](int64_t hours) {
    return hours > 0 ? absl::Hours(hours) : absl::InfiniteDuration();
  };
  options.dataset_bytes = flags.dataset_bytes;
  options.dataset_keep = keep(flags.dataset_keep_hours);
  options.job_bytes = flags.job_bytes;
  options.job_keep = keep(flags.job_keep_hours);
  options.job_memory = flags.job_memory;
  options.store_bytes = flags.store_bytes;
  options.store_keep = keep(flags.store_keep_hours);
  return options;
}

service::RegistryOptions ToRegistryOptions(const Flags& flags) {
  service::RegistryOptions options;
  options.catalog = flags.catalog;
  options.model_root = flags.model_root;
  options.upload_directory = flags.upload_dir;
  options.upload_bytes = flags.upload_bytes;
  options.upload_idle = absl::Seconds(flags.upload_idle_seconds);
  if (!flags.cache_dir.empty()) {
    // Among what is no cache (Engine::Impl::StateDirectory).
    options.state_directory =
        absl::StrCat(flags.cache_dir, "/state/registered");
    if (options.upload_directory.empty()) {
      options.upload_directory = absl::StrCat(flags.cache_dir, "/state");
    }
  } else if (!flags.upload_dir.empty()) {
    options.state_directory =
        absl::StrCat(flags.upload_dir, "/cupola-registered");
  }
  return options;
}

// A line where the cache is not what was asked for.
void LogCache(const engine::Engine& engine) {
  const std::string directory = engine.options().cache.directory;
  if (directory.empty()) return;
  if (const std::string reason = engine.CacheDisabledReason();
      !reason.empty()) {
    service::LogWarning("no cache",
                        {{"directory", directory}, {"reason", reason}});
  }
  if (const std::string to = engine.CacheMovedAsideTo(); !to.empty()) {
    service::LogWarning("cache moved aside",
                        {{"directory", directory}, {"to", to}});
  }
}

// One line per entry, once all of them have loaded or failed.
void LogCatalog(const engine::Engine& engine) {
  const auto log = [](const char* kind, const auto& status) {
    nlohmann::json fields = {{"name", status.spec.name},
                             {"kind", kind},
                             {"state", engine::StateName(status.state)},
                             {"load_seconds", status.load_seconds},
                             {"resident_bytes", status.resident_bytes}};
    if (status.state == engine::State::kFailed) {
      fields["reason"] = status.failure;
      service::LogWarning("entry", std::move(fields));
    } else {
      service::LogInfo("entry", std::move(fields));
    }
  };
  for (const auto& status : engine.Models()) log("model", status);
  for (const auto& status : engine.Dictionaries()) log("dictionary", status);
}

// Null without TLS.
absl::StatusOr<std::shared_ptr<tls::TlsFiles>> LoadTls(const Flags& flags) {
  if (flags.tls_cert.empty()) return nullptr;
  return tls::LoadTlsFiles({flags.tls_cert, flags.tls_key, flags.tls_client_ca},
                           [](const absl::Status& status) {
                             if (status.ok()) {
                               service::LogInfo("TLS files read");
                             } else {
                               service::LogWarning(
                                   "TLS files kept, the new ones are broken",
                                   {{"reason", std::string(status.message())}});
                             }
                           });
}

// What the HTTP port tells, and whom.
http::HttpSources MakeHttpSources(const Flags& flags, service::Metrics* metrics,
                                  const std::atomic<bool>* serving,
                                  service::Access* access,
                                  service::Server* server) {
  http::HttpSources sources;
  sources.metrics = [metrics] { return metrics->Text(); };
  sources.ready = [serving] { return serving->load(); };
  sources.admit = [access](const std::string& authorization,
                           const std::string& address) {
    return access->Identify(authorization, address).status();
  };
  // HTTP is plain and sees no certificates: it must not be the way around them.
  if (!flags.tls_client_ca.empty() && flags.tokens.empty()) {
    sources.why_no_api =
        "no /v1 where --tls_client_ca is given without --tokens: HTTP is plain";
    service::LogWarning("no JSON over HTTP", {{"reason", sources.why_no_api}});
  } else {
    sources.api = std::make_unique<http::JsonApi>(server->InProcessChannel(),
                                                  flags.http_answer_bytes);
  }
  return sources;
}

void Reload(service::Registry& registry) {
  const absl::Status reloaded = registry.Reload();
  if (reloaded.ok()) {
    service::LogInfo("catalog reloaded");
  } else {
    service::LogError("catalog not reloaded; the old one stays",
                      {{"reason", std::string(reloaded.message())}});
  }
}

// The signals that end the server, and SIGHUP. Blocked in every thread, so that
// only `Wait` sees them.
class Signals {
 public:
  Signals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGHUP);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }

  enum class Which { kNone, kEnd, kReload };
  // Waits for one of them, at most so long.
  Which Wait(absl::Duration timeout) const {
    const timespec limit = absl::ToTimespec(timeout);
    const int signal = sigtimedwait(&set_, nullptr, &limit);
    if (signal == SIGHUP) return Which::kReload;
    return signal > 0 ? Which::kEnd : Which::kNone;
  }

  // From now on a signal ends the process at once, and SIGHUP does nothing.
  void Release() const {
    std::signal(SIGHUP, SIG_IGN);
    std::signal(SIGTERM, SIG_DFL);
    std::signal(SIGINT, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set_, nullptr);
  }

 private:
  sigset_t set_;
};

int Serve(const Flags& flags) {
  const Signals signals;  // before the first thread
  const absl::Status logging = service::StartLog(flags.log_level);
  if (!logging.ok()) return Complain(logging, kUsage);
  if (flags.threads > 0) at::set_num_threads(static_cast<int>(flags.threads));

  absl::StatusOr<engine::CatalogSpec> catalog =
      service::ReadCatalogFile(flags.catalog, flags.model_root);
  if (!catalog.ok()) return Complain(catalog.status(), kFailed);
  engine::StampFiles(&*catalog);

  service::Metrics metrics(CUPOLA_VERSION, TORCH_VERSION);
  auto engine =
      engine::Engine::Create(ToEngineOptions(flags, *catalog), &metrics);
  if (!engine.ok()) return Complain(engine.status(), kFailed);
  LogCache(**engine);
  service::Registry registry(ToRegistryOptions(flags), *std::move(catalog),
                             engine->get());
  (*engine)->jobs().Begin();  // they may name what was registered
  metrics.SetGauges([engine = engine->get()] {
    const engine::QueueDepths depths = engine->QueueDepth();
    return service::Gauges{
        depths.interactive,        depths.bulk,
        engine->BytesInFlight(),   engine->BudgetBytes(),
        engine->CacheStatistics(), engine::MeasureDevices(engine->Devices())};
  });

  service::AccessOptions access_options;
  access_options.tokens = flags.tokens;
  access_options.limits = {flags.client_requests_per_minute,
                           flags.client_bytes_per_minute,
                           flags.client_concurrent};
  auto access = service::Access::Create(std::move(access_options));
  if (!access.ok()) return Complain(access.status(), kFailed);
  absl::StatusOr<std::shared_ptr<tls::TlsFiles>> tls = LoadTls(flags);
  if (!tls.ok()) return Complain(tls.status(), kFailed);

  service::ServerOptions options;
  options.tls = *tls;
  options.access = access->get();
  options.host = flags.listen.host;
  options.port = flags.listen.port;
  options.reflection = flags.reflection;
  options.version = CUPOLA_VERSION;
  options.torch_version = TORCH_VERSION;
  options.registry = &registry;
  auto server = service::Server::Start(options, engine->get(), &metrics);
  if (!server.ok()) return Complain(server.status(), kFailed);

  std::atomic<bool> serving{false};
  std::unique_ptr<http::HttpServer> http;
  std::string line = absl::StrCat("cupola: listening grpc=", flags.listen.host,
                                  ":", (*server)->port());
  if (flags.http_enabled) {
    http::HttpOptions http_options;
    http_options.host = flags.http.host;
    http_options.port = flags.http.port;
    http_options.hosts = flags.http_hosts;
    http_options.origins = flags.http_origins;
    auto started = http::HttpServer::Start(
        http_options, MakeHttpSources(flags, &metrics, &serving, access->get(),
                                      server->get()));
    if (!started.ok()) return Complain(started.status(), kFailed);
    http = *std::move(started);
    absl::StrAppend(&line, " http=", flags.http.host, ":", http->port());
  }
  std::puts(line.c_str());
  std::fflush(stdout);
  service::LogInfo("listening", {{"address", line}});

  // Health turns SERVING with the catalog; a signal ends the wait.
  for (bool ended = false; !ended;) {
    const bool ready = serving || (*engine)->CatalogReady();
    if (ready && !serving.exchange(true)) {
      (*server)->SetServing(true);
      LogCatalog(**engine);
      service::LogInfo("serving");
    }
    const auto signal =
        signals.Wait(ready ? absl::Hours(1) : absl::Milliseconds(20));
    ended = signal == Signals::Which::kEnd;
    if (signal == Signals::Which::kReload) Reload(registry);
  }

  signals.Release();
  service::LogInfo("draining", {{"seconds", flags.drain_seconds}});
  serving = false;
  const absl::Time deadline = absl::Now() + absl::Seconds(flags.drain_seconds);
  // In this order every call ends with its answer or as UNAVAILABLE.
  (*engine)->jobs().Interrupt();
  (*server)->Drain(deadline);
  (*engine)->Drain(deadline);
  (*server)->Shutdown();
  if (http != nullptr) http->Drain(deadline);
  http.reset();
  metrics.SetGauges(nullptr);
  server->reset();
  engine->reset();
  service::LogInfo("ended");
  service::StopLog();
  return 0;
}

}  // namespace
}  // namespace cupola

int main(int argc, char** argv) {
  const auto flags =
      cupola::ParseFlags(std::vector<std::string>(argv + 1, argv + argc));
  if (!flags.ok()) return cupola::Complain(flags.status(), cupola::kUsage);
  if (flags->help) {
    std::fputs(cupola::FlagsHelp().c_str(), stdout);
    return 0;
  }
  if (flags->version) {
    std::printf("cupola_server %s (torch %s)\n", CUPOLA_VERSION, TORCH_VERSION);
    return 0;
  }
  return cupola::Serve(*flags);
}
