#include "server/service/metrics.h"

#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/service/request_scope.h"

namespace cupola::service {
namespace {

using ::testing::HasSubstr;

// Every line is a comment or a sample whose family was declared before.
void ExpectWellFormed(const std::string& text) {
  const std::regex sample(
      R"re(([a-z_]+)(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? -?[0-9.e+Inf-]+)re");
  std::set<std::string> declared;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# TYPE ", 0) == 0) {
      declared.insert(line.substr(7, line.find(' ', 7) - 7));
      continue;
    }
    if (line.rfind("# HELP ", 0) == 0) continue;
    std::smatch match;
    ASSERT_TRUE(std::regex_match(line, match, sample)) << line;
    const std::string name = std::regex_replace(
        match[1].str(), std::regex("_(bucket|sum|count)$"), "");
    EXPECT_TRUE(declared.count(name) || declared.count(match[1].str())) << line;
    EXPECT_EQ(name.rfind("cupola_", 0), 0u) << line;
  }
}

TEST(MetricsTest, RequestsByMethodAndCode) {
  Metrics metrics("1.2.3", "2.13.0");
  RequestTimes times;
  times.total = 0.5;
  times.queue = 0.2;
  metrics.OnRequestStart();
  EXPECT_THAT(metrics.Text(), HasSubstr("cupola_requests_in_flight 1"));
  metrics.OnLoad("m", true, 0.1);
  metrics.OnRequestEnd("GetFeatures", "m", "OK", true, times, 7);
  metrics.OnRequestStart();
  metrics.OnRequestEnd("GetFeatures", "from a request", "NOT_FOUND", false,
                       times, 0);
  const std::string text = metrics.Text();
  ExpectWellFormed(text);
  EXPECT_THAT(text, HasSubstr("cupola_requests_in_flight 0"));
  EXPECT_THAT(text, HasSubstr("cupola_requests_total{code=\"OK\","
                              "method=\"GetFeatures\",model=\"m\"} 1"));
  EXPECT_THAT(text, HasSubstr("cupola_requests_total{code=\"NOT_FOUND\","
                              "method=\"GetFeatures\",model=\"\"} 1"));
  EXPECT_THAT(text, HasSubstr("cupola_request_seconds_count{"
                              "method=\"GetFeatures\"} 2"));
  // A refused request has no stages.
  EXPECT_THAT(
      text, HasSubstr("cupola_queue_seconds_count{method=\"GetFeatures\"} 1"));
  EXPECT_THAT(text, HasSubstr("cupola_prompt_tokens_total{"
                              "method=\"GetFeatures\"} 7"));
  EXPECT_THAT(text, HasSubstr("cupola_build_info{torch=\"2.13.0\","
                              "version=\"1.2.3\"} 1"));
  EXPECT_EQ(metrics.requests(), 2);
}

TEST(MetricsTest, WhatTheEngineTells) {
  Metrics metrics("1", "2");
  metrics.OnBatch("cpu", 128, 4, 0.01);
  metrics.OnSharedFlight();
  metrics.OnLoad("m", true, 1.5);
  metrics.OnLoad("broken", false, 0.1);
  metrics.OnResidentBytes("m", "model", 1000);
  metrics.OnResidentBytes("m", "model", 500);
  const std::string text = metrics.Text();
  ExpectWellFormed(text);
  EXPECT_THAT(text, HasSubstr("cupola_batch_tokens_sum{device=\"cpu\"} 128"));
  EXPECT_THAT(text, HasSubstr("cupola_batch_parts_sum{device=\"cpu\"} 4"));
  EXPECT_THAT(text, HasSubstr("cupola_load_seconds_sum{name=\"m\"} 1.5"));
  EXPECT_THAT(text, HasSubstr("cupola_shared_parts_total 1"));
  EXPECT_THAT(text, HasSubstr("cupola_loads_total{name=\"broken\","
                              "result=\"failed\"} 1"));
  EXPECT_THAT(text, HasSubstr("cupola_resident_bytes{kind=\"model\","
                              "name=\"m\"} 500"));
}

TEST(MetricsTest, GaugesAreReadWhenAsked) {
  Metrics metrics("1", "2");
  EXPECT_THAT(metrics.Text(), ::testing::Not(HasSubstr("cupola_queue_depth")));
  Gauges gauges;
  metrics.SetGauges([&gauges] { return gauges; });
  gauges.queued = 3;
  gauges.queued_bulk = 5;
  gauges.cache.disk_bytes = 4096;
  gauges.cache.corrupt_records = 2;
  gauges.cache.hits = 5;
  gauges.cache.memory_hits = 4;
  gauges.cache.misses = 7;
  gauges.cache.evicted_age_seconds = 90;
  gauges.devices = {{"cuda:0", 100, 300}, {"cpu", 20, 40}};
  const std::string text = metrics.Text();
  ExpectWellFormed(text);
  EXPECT_THAT(text, HasSubstr("cupola_queue_depth{priority=\"interactive\"} 3"));
  EXPECT_THAT(text, HasSubstr("cupola_queue_depth{priority=\"bulk\"} 5"));
  EXPECT_THAT(text, HasSubstr("cupola_cache_bytes{tier=\"disk\"} 4096"));
  EXPECT_THAT(text, HasSubstr("cupola_cache_corrupt_records_total 2"));
  for (const char* line :
       {"cupola_cache_lookups_total{result=\"hit\",tier=\"memory\"} 4",
        "cupola_cache_lookups_total{result=\"hit\",tier=\"disk\"} 1",
        "cupola_cache_lookups_total{result=\"miss\",tier=\"disk\"} 7",
        "cupola_cache_evicted_age_seconds 90",
        "cupola_device_memory_bytes{device=\"cuda:0\"} 100",
        "cupola_device_memory_capacity_bytes{device=\"cuda:0\"} 300",
        "cupola_device_memory_bytes{device=\"cpu\"} 20"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  metrics.SetGauges(nullptr);
  EXPECT_THAT(metrics.Text(), ::testing::Not(HasSubstr("cupola_queue_depth")));
}

TEST(TraceIdTest, FromTraceparent) {
  EXPECT_EQ(TraceId("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            "4bf92f3577b34da6a3ce929d0e0e4736");
  // A later version may say more.
  EXPECT_EQ(
      TraceId("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"),
      "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(TraceId("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-" +
                    std::string(300, 'x')),
            "");
  for (const char* bad :
       {"", "00", "00-4bf92f3577b34da6a3ce929d0e0e4736",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e47\"6-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902bX-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"}) {
    EXPECT_EQ(TraceId(bad), "") << bad;
  }
}

}  // namespace
}  // namespace cupola::service
