#include "client/bench/report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace cupola::bench {
namespace {

using Json = nlohmann::ordered_json;

double MeanOf(double sum, int64_t count) {
  return count > 0 ? sum / static_cast<double>(count) : 0;
}

Json ToJson(const LatencySummary& latency) {
  return {{"count", latency.count}, {"mean", latency.mean},
          {"p50", latency.p50},     {"p90", latency.p90},
          {"p95", latency.p95},     {"p99", latency.p99},
          {"max", latency.max}};
}

Json ToJson(const PointReport& report) {
  const Point& point = report.point;
  const Window& counts = point.counts;
  const int64_t answers = point.latency.count;
  Json json = {{"clients", nullptr}, {"rate", nullptr}};
  if (report.clients > 0) json["clients"] = report.clients;
  if (report.rate > 0) json["rate"] = report.rate;
  json["stable"] = point.stable;
  json["windows"] = point.windows;
  json["seconds"] = point.seconds;
  json["throughput"] = point.throughput;
  json["latency_seconds"] = ToJson(point.latency);
  json["codes"] = Json::object();
  for (const auto& [code, count] : counts.codes) json["codes"][code] = count;
  json["hits"] = counts.hits;
  json["bytes"] = counts.bytes;
  json["queue_seconds_mean"] = MeanOf(counts.queue_seconds, answers);
  json["compute_seconds_mean"] = MeanOf(counts.compute_seconds, answers);
  json["refusals_without_delay"] = counts.refusals_without_delay;
  json["unfinished"] = report.unfinished;
  json["backlog"] = report.backlog;
  return json;
}

}  // namespace

std::string ToJson(const Options& options, const Subject& subject,
                   const std::string& time,
                   const std::vector<PointReport>& points) {
  const bool open = !options.rates.empty();
  const MixOptions& mix = options.mix;
  Json json = {{"tool", "cupola_bench"},
               {"format", 1},
               {"time", time},
               {"address", options.caller.address},
               {"model", subject.model},
               {"dictionary", subject.dictionary},
               {"loop", open ? "open" : "closed"},
               {"arrivals", nullptr},
               {"seed", mix.seed}};
  if (open) {
    json["arrivals"] =
        options.arrivals == ArrivalProcess::kFixed ? "fixed" : "poisson";
  }
  Json& mix_json = json["mix"];
  for (int k = 0; k < kKinds; ++k) {
    mix_json[KindName(static_cast<Kind>(k))] = mix.weights[k];
  }
  mix_json["lengths"] = mix.lengths;
  mix_json["repeat"] = mix.repeat;
  mix_json["repeated_prompts"] = mix.repeated_prompts;
  json["window_seconds"] = absl::ToDoubleSeconds(options.point.window);
  json["max_windows"] = options.point.max_windows;
  json["connections"] = options.caller.connections;
  json["deadline_seconds"] = absl::ToDoubleSeconds(options.caller.deadline);
  json["points"] = Json::array();
  for (const PointReport& point : points) {
    json["points"].push_back(ToJson(point));
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string TableHeading(const Options& options) {
  return absl::StrFormat("%9s %10s %9s %9s %9s %9s %6s %7s  %s",
                         options.rates.empty() ? "clients" : "rate",
                         "answers/s", "p50 ms", "p95 ms", "p99 ms", "max ms",
                         "hits", "errors", "stable");
}

std::string TableLine(const PointReport& report) {
  const Point& point = report.point;
  const LatencySummary& latency = point.latency;
  std::string errors;
  int64_t failed = 0;
  for (const auto& [code, count] : point.counts.codes) {
    if (code == "OK") continue;
    failed += count;
    absl::StrAppend(&errors, " ", code, "=", count);
  }
  const double hits =
      100 * MeanOf(static_cast<double>(point.counts.hits), latency.count);
  std::string line = absl::StrFormat(
      "%9.6g %10.1f %9.2f %9.2f %9.2f %9.2f %5.0f%% %7d  %s",
      std::max(report.rate, static_cast<double>(report.clients)),
      point.throughput, 1e3 * latency.p50, 1e3 * latency.p95, 1e3 * latency.p99,
      1e3 * latency.max, hits, failed, point.stable ? "yes" : "no");
  absl::StrAppend(&line, errors);
  if (report.unfinished > 0) {
    absl::StrAppend(&line, " unfinished=", report.unfinished);
  }
  if (report.backlog > 0) absl::StrAppend(&line, " backlog=", report.backlog);
  return line;
}

}  // namespace cupola::bench
