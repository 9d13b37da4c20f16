#include "client/bench/options.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(OptionsTest, Defaults) {
  const auto options = ParseOptions({"127.0.0.1:7070"}, 9);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->caller.address, "127.0.0.1:7070");
  EXPECT_THAT(options->clients, ElementsAre(1, 8, 32));
  EXPECT_THAT(options->rates, IsEmpty());
  EXPECT_EQ(options->mix.seed, 9u);
}

TEST(OptionsTest, Everything) {
  const auto options = ParseOptions(
      {"--rate=12.5,100", "[::1]:1", "--arrivals", "fixed", "--features=0",
       "--ablate", "2", "--run=1", "--lengths=16,32", "--repeat=0.5",
       "--repeated_prompts=7", "--window=0.5", "--max_windows=3",
       "--deadline=2", "--connections=8", "--max_in_flight=50", "--seed=3",
       "--json=-", "--dictionary=a=b"},
      9);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->caller.address, "[::1]:1");
  EXPECT_THAT(options->rates, ElementsAre(12.5, 100));
  EXPECT_THAT(options->clients, IsEmpty());
  EXPECT_EQ(options->arrivals, ArrivalProcess::kFixed);
  EXPECT_THAT(options->mix.weights, ElementsAre(0, 2, 1));
  EXPECT_THAT(options->mix.lengths, ElementsAre(16, 32));
  EXPECT_EQ(options->mix.repeat, 0.5);
  EXPECT_EQ(options->mix.repeated_prompts, 7);
  EXPECT_EQ(options->point.window, absl::Milliseconds(500));
  EXPECT_EQ(options->point.max_windows, 3);
  EXPECT_EQ(options->caller.deadline, absl::Seconds(2));
  EXPECT_EQ(options->caller.connections, 8);
  EXPECT_EQ(options->max_in_flight, 50);
  EXPECT_EQ(options->mix.seed, 3u);
  EXPECT_EQ(options->json, "-");
  EXPECT_EQ(options->dictionary, "a=b");
}

TEST(OptionsTest, WrongLinesAreNamed) {
  const auto refused = [](std::vector<std::string> line, const char* part) {
    const auto options = ParseOptions(line, 1);
    EXPECT_TRUE(absl::IsInvalidArgument(options.status())) << part;
    EXPECT_THAT(std::string(options.status().message()), HasSubstr(part));
  };
  refused({}, "address is missing");
  refused({"a:1", "b:1"}, "\"b:1\" is a second address");
  refused({"a:1", "--nonsense=1"}, "--nonsense is unknown");
  refused({"a:1", "--seed"}, "--seed needs a value");
  refused({"a:1", "--seed=1", "--seed=2"}, "twice");
  refused({"a:1", "--clients=0"}, "--clients is \"0\"; accepted");
  refused({"a:1", "--clients=1,,2"}, "accepted");
  refused({"a:1", "--rate=0"}, "--rate is \"0\"");
  refused({"a:1", "--rate=nan"}, "accepted");
  refused({"a:1", "--rate=1", "--clients=1"}, "exclude each other");
  refused({"a:1", "--arrivals=burst"}, "poisson or fixed");
  refused({"a:1", "--repeat=1.5"}, "from 0 to 1");
  refused({"a:1", "--window=0"}, "above 0");
  refused({"a:1", "--json="}, "not empty");
}

TEST(OptionsTest, Help) {
  EXPECT_TRUE(ParseOptions({"--help"}, 1)->help);
  EXPECT_THAT(OptionsHelp(), HasSubstr("--max_in_flight"));
}

}  // namespace
}  // namespace cupola::bench
