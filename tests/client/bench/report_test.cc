#include "client/bench/report.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace cupola::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Options OptionsOf(std::vector<std::string> line) {
  line.insert(line.begin(), "127.0.0.1:1");
  return *ParseOptions(line, 4);
}

PointReport ClosedPoint() {
  PointReport report;
  report.clients = 8;
  report.point.stable = true;
  report.point.windows = 4;
  report.point.seconds = 6;
  report.point.throughput = 20.5;
  report.point.latency = Summarize({0.1, 0.2, 0.3, 0.4});
  report.point.counts.codes = {{"OK", 4}, {"UNAVAILABLE", 2}};
  report.point.counts.hits = 1;
  report.point.counts.queue_seconds = 0.8;
  report.unfinished = 3;
  return report;
}

TEST(ReportTest, ClosedLoop) {
  const auto json = nlohmann::json::parse(
      ToJson(OptionsOf({"--clients=8", "--lengths=4,8"}), {"m", "m/d", 100, 64},
             "2026-01-02T03:04:05Z", {ClosedPoint()}));
  EXPECT_EQ(json["tool"], "cupola_bench");
  EXPECT_EQ(json["format"], 1);
  EXPECT_EQ(json["loop"], "closed");
  EXPECT_TRUE(json["arrivals"].is_null());
  EXPECT_EQ(json["dictionary"], "m/d");
  EXPECT_EQ(json["mix"]["lengths"], (std::vector<int>{4, 8}));
  EXPECT_EQ(json["mix"]["features"], 1);
  const auto& point = json["points"][0];
  EXPECT_EQ(point["clients"], 8);
  EXPECT_TRUE(point["rate"].is_null());
  EXPECT_EQ(point["latency_seconds"]["p50"], 0.2);
  EXPECT_EQ(point["latency_seconds"]["max"], 0.4);
  EXPECT_EQ(point["codes"]["UNAVAILABLE"], 2);
  EXPECT_EQ(point["queue_seconds_mean"], 0.2);
  EXPECT_EQ(point["unfinished"], 3);
}

TEST(ReportTest, OpenLoop) {
  PointReport report;
  report.rate = 12.5;
  report.backlog = 7;
  const auto json = nlohmann::json::parse(
      ToJson(OptionsOf({"--rate=12.5"}), {"m", "\xff", 100, 64}, "", {report}));
  EXPECT_EQ(json["loop"], "open");
  EXPECT_EQ(json["arrivals"], "poisson");
  EXPECT_EQ(json["points"][0]["rate"], 12.5);
  EXPECT_EQ(json["points"][0]["backlog"], 7);
  EXPECT_EQ(json["points"][0]["compute_seconds_mean"], 0.0);
}

TEST(ReportTest, Table) {
  const std::string line = TableLine(ClosedPoint());
  for (const char* part : {"8", "20.5", "200.00", "400.00", "25%", "yes",
                           "UNAVAILABLE=2", "unfinished=3"}) {
    EXPECT_THAT(line, HasSubstr(part));
  }
  EXPECT_THAT(line, Not(HasSubstr("OK=")));
  EXPECT_THAT(TableHeading(OptionsOf({"--rate=5"})), HasSubstr("rate"));
}

}  // namespace
}  // namespace cupola::bench
