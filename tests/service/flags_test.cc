#include "server/flags.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cupola {
namespace {

using ::testing::HasSubstr;

TEST(FlagsTest, Defaults) {
  const auto flags = ParseFlags({"--catalog", "c"});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->catalog, "c");
  EXPECT_EQ(flags->listen.host, "127.0.0.1");
  EXPECT_EQ(flags->listen.port, 7070);
  EXPECT_EQ(flags->http.port, 7071);
  EXPECT_EQ(flags->cache_bytes, 10LL << 30);
  EXPECT_EQ(flags->device, "auto");
  EXPECT_EQ(flags->product_bytes, 2LL << 30);
  EXPECT_TRUE(flags->self_check);
  EXPECT_FALSE(flags->reflection);
}

TEST(FlagsTest, BothWaysToWriteAValue) {
  const auto flags = ParseFlags({"--catalog=c",
                                 "--listen",
                                 "0.0.0.0:0",
                                 "--http=[::1]:80",
                                 "--cache_dir",
                                 "/tmp/x",
                                 "--cache_bytes",
                                 "512M",
                                 "--cache_memory_bytes=7",
                                 "--device",
                                 "cuda:1",
                                 "--no-self_check",
                                 "--reflection",
                                 "--drain_seconds=5",
                                 "--log_level",
                                 "debug",
                                 "--threads=2",
                                 "--batch_tokens",
                                 "64",
                                 "--product_bytes=3M",
                                 "--insecure_public",
                                 "--http_hosts=a.example,b.example",
                                 "--model_root=/models"});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->listen.host, "0.0.0.0");
  EXPECT_EQ(flags->listen.port, 0);
  EXPECT_EQ(flags->http.host, "[::1]");
  EXPECT_EQ(flags->http.port, 80);
  EXPECT_EQ(flags->cache_bytes, 512LL << 20);
  EXPECT_EQ(flags->cache_memory_bytes, 7);
  EXPECT_EQ(flags->device, "cuda:1");
  EXPECT_FALSE(flags->self_check);
  EXPECT_TRUE(flags->reflection);
  EXPECT_EQ(flags->drain_seconds, 5);
  EXPECT_EQ(flags->log_level, "debug");
  EXPECT_EQ(flags->threads, 2);
  EXPECT_EQ(flags->batch_tokens, 64);
  EXPECT_EQ(flags->product_bytes, 3LL << 20);
  EXPECT_EQ(flags->model_root, "/models");
  EXPECT_THAT(flags->http_hosts,
              ::testing::ElementsAre("a.example", "b.example"));
}

TEST(FlagsTest, HttpCanBeOff) {
  const auto flags = ParseFlags({"--catalog=c", "--http=off"});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_FALSE(flags->http_enabled);
}

TEST(FlagsTest, HelpAndVersionNeedNoCatalog) {
  EXPECT_TRUE(ParseFlags({"--help"})->help);
  EXPECT_TRUE(ParseFlags({"--version"})->version);
}

TEST(FlagsTest, SizeSuffixes) {
  const auto size = [](const std::string& text) {
    return ParseFlags({"--catalog=c", "--cache_bytes", text})->cache_bytes;
  };
  EXPECT_EQ(size("0"), 0);
  EXPECT_EQ(size("3K"), 3072);
  EXPECT_EQ(size("2T"), 2LL << 40);
}

TEST(FlagsTest, PublicAddressesNeedTlsOrConsent) {
  const auto parse = [](std::vector<std::string> arguments) {
    arguments.push_back("--catalog=c");
    return ParseFlags(arguments).status();
  };
  for (const char* host : {"0.0.0.0", "[::]", "192.0.2.1", "gpu7",
                           "127.0.0.1.example", "[::ffff:127.0.0.1]"}) {
    const std::string address = std::string(host) + ":7070";
    for (const char* flag : {"--listen", "--http"}) {
      const absl::Status refused = parse({flag, address});
      EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << host;
      EXPECT_THAT(std::string(refused.message()),
                  ::testing::AllOf(HasSubstr(flag), HasSubstr(address),
                                   HasSubstr("--insecure_public")));
      EXPECT_TRUE(parse({flag, address, "--insecure_public"}).ok());
      const bool grpc = std::string(flag) == "--listen";
      EXPECT_EQ(parse({flag, address, "--insecure_public=grpc"}).ok(), grpc);
      EXPECT_EQ(parse({flag, address, "--insecure_public=http"}).ok(), !grpc);
      EXPECT_FALSE(parse({flag, address, "--no-insecure_public"}).ok());
      // HTTP is plain whatever gRPC is.
      EXPECT_EQ(
          parse({flag, address, "--tls_cert=c.pem", "--tls_key=k.pem"}).ok(),
          std::string(flag) == "--listen");
    }
    EXPECT_TRUE(parse({"--http=off"}).ok());
  }
  for (const char* host : {"localhost", "127.0.0.1", "127.3.2.1", "[::1]"}) {
    EXPECT_TRUE(parse({"--listen", std::string(host) + ":7070"}).ok()) << host;
  }
}

struct BadLine {
  std::vector<std::string> arguments;
  std::vector<std::string> says;
};

TEST(FlagsTest, BadLines) {
  const std::vector<BadLine> cases = {
      {{}, {"--catalog is missing"}},
      {{"--catalog=c", "--colour=red"}, {"--colour is unknown"}},
      {{"--catalog=c", "--no-listen"}, {"--no-listen is unknown"}},
      {{"catalog"}, {"\"catalog\" is no flag"}},
      {{"--catalog"}, {"--catalog needs a value"}},
      {{"--catalog="}, {"--catalog is \"\""}},
      {{"--catalog=a", "--catalog=b"}, {"--catalog is given twice"}},
      {{"--catalog=c", "--listen=7070"}, {"--listen is \"7070\"", "HOST:PORT"}},
      {{"--catalog=c", "--listen=a:70000"}, {"a:70000"}},
      {{"--catalog=c", "--listen=a:7070s"}, {"a:7070s"}},
      {{"--catalog=c", "--listen=::1:7070"}, {"brackets"}},
      {{"--catalog=c", "--cache_bytes=10X"},
       {"--cache_bytes is \"10X\"", "10G"}},
      {{"--catalog=c", "--cache_bytes=-1"}, {"\"-1\""}},
      {{"--catalog=c", "--http_answer_bytes=2G"}, {"\"2G\"", "1073741824"}},
      {{"--catalog=c", "--insecure_public=yes"}, {"\"yes\"", "grpc, http"}},
      {{"--catalog=c", "--cache_bytes=G"}, {"\"G\""}},
      {{"--catalog=c", "--cache_bytes=9000000000T"}, {"9000000000T"}},
      {{"--catalog=c", "--product_bytes=2X"}, {"--product_bytes is \"2X\""}},
      {{"--catalog=c", "--batch_tokens=0"}, {"--batch_tokens is \"0\""}},
      {{"--catalog=c", "--reflection=maybe"}, {"true or false"}},
      {{"--catalog=c", "--tls_cert=c.pem"}, {"--tls_cert and --tls_key"}},
      {{"--catalog=c", "--tls_key=k.pem"}, {"--tls_cert and --tls_key"}},
      {{"--catalog=c", "--tls_client_ca=a.pem"}, {"--tls_client_ca needs"}},
      {{"--catalog=c", "--http_hosts=a,,b"}, {"a,,b", "commas"}},
      {{"--catalog=c", "--log_level=loud"}, {"\"loud\"", "debug, info"}},
  };
  for (const BadLine& bad : cases) {
    const auto flags = ParseFlags(bad.arguments);
    ASSERT_FALSE(flags.ok()) << bad.says[0];
    EXPECT_EQ(flags.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string message(flags.status().message());
    EXPECT_EQ(message.find('\n'), std::string::npos);
    for (const std::string& part : bad.says) {
      EXPECT_THAT(message, HasSubstr(part));
    }
  }
}

TEST(FlagsTest, HelpNamesEveryFlagOfTheDesign) {
  const std::string help = FlagsHelp();
  for (const char* flag :
       {"--catalog", "--listen", "--http", "--cache_dir", "--cache_bytes",
        "--device", "--model_root", "--product_bytes", "--reflection",
        "--drain_seconds"}) {
    EXPECT_THAT(help, HasSubstr(flag));
  }
}

}  // namespace
}  // namespace cupola
