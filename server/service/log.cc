#include "server/service/log.h"

#include <memory>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "spdlog/async.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace cupola::service {
namespace {

constexpr size_t kWaitingLines = 8192;

// Set by StartLog, read by every line; shared_ptr so that a line being written
// while the log stops keeps its logger.
std::shared_ptr<spdlog::async_logger> logger;
std::mutex mutex;

std::shared_ptr<spdlog::async_logger> Logger() {
  std::lock_guard<std::mutex> lock(mutex);
  return logger;
}

void Write(spdlog::level::level_enum level, const char* name, const char* event,
           nlohmann::json fields) {
  const std::shared_ptr<spdlog::async_logger> log = Logger();
  if (log == nullptr || !log->should_log(level)) return;
  nlohmann::ordered_json line = {
      {"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::Now(),
                                absl::UTCTimeZone())},
      {"level", name},
      {"event", event}};
  for (auto& [key, value] : fields.items()) line[key] = std::move(value);
  log->log(level,
           line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

absl::Status StartLog(const std::string& level) {
  spdlog::level::level_enum threshold = spdlog::level::info;
  if (level == "debug") {
    threshold = spdlog::level::debug;
  } else if (level == "warning") {
    threshold = spdlog::level::warn;
  } else if (level == "error") {
    threshold = spdlog::level::err;
  } else if (level == "off") {
    threshold = spdlog::level::off;
  } else if (level != "info") {
    return absl::InvalidArgumentError(
        absl::StrCat("log level \"", level,
                     "\"; accepted: debug, info, warning, error, off"));
  }
  spdlog::init_thread_pool(kWaitingLines, 1);
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  sink->set_pattern("%v");
  auto log = std::make_shared<spdlog::async_logger>(
      "cupola", std::move(sink), spdlog::thread_pool(),
      spdlog::async_overflow_policy::overrun_oldest);
  log->set_level(threshold);
  log->flush_on(spdlog::level::info);
  std::lock_guard<std::mutex> lock(mutex);
  logger = std::move(log);
  return absl::OkStatus();
}

void StopLog() {
  {
    std::lock_guard<std::mutex> lock(mutex);
    logger.reset();
  }
  spdlog::shutdown();
}

void LogInfo(const char* event, nlohmann::json fields) {
  Write(spdlog::level::info, "info", event, std::move(fields));
}

void LogWarning(const char* event, nlohmann::json fields) {
  Write(spdlog::level::warn, "warning", event, std::move(fields));
}

void LogError(const char* event, nlohmann::json fields) {
  Write(spdlog::level::err, "error", event, std::move(fields));
}

}  // namespace cupola::service
