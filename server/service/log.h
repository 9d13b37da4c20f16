#ifndef CUPOLA_SERVER_SERVICE_LOG_H_
#define CUPOLA_SERVER_SERVICE_LOG_H_

#include <string>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

// The server's log: one JSON object per line on standard error, written by a
// thread of its own, so that a slow reader of the log delays no request (lines
// are dropped, oldest first, when 8192 wait). Prompts never go here: callers
// log names, counts, codes and times.

namespace cupola::service {

// `level`: "debug", "info", "warning", "error" or "off". INVALID_ARGUMENT
// otherwise. Call once, before the first line; without it nothing is logged.
absl::Status StartLog(const std::string& level);
// Writes what waits and ends the log's thread.
void StopLog();

// A line {"time": ..., "level": ..., "event": `event`, ...`fields`}. Text that
// is not UTF-8 is repaired. Any thread may call.
void LogInfo(const char* event, nlohmann::json fields = {});
void LogWarning(const char* event, nlohmann::json fields = {});
void LogError(const char* event, nlohmann::json fields = {});

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_LOG_H_
