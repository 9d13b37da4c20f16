#include "server/service/access.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/service/status.h"

namespace cupola::service {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Hex(const std::string& token) {
  const TokenHash hash = HashToken(token);
  return absl::BytesToHexString(absl::string_view(
      reinterpret_cast<const char*>(hash.data()), hash.size()));
}

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

TEST(TokenFile, HashIsSha256) {  // of FIPS 180-2's example
  EXPECT_EQ(Hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(TokenFile, Reads) {
  const std::string text = absl::StrCat(
      "# people\n\nada admin ", Hex("a"), "\r\n  bob\tread ", Hex("b"),
      " expires=2027-01-31 requests_per_minute=60 bytes_per_minute=2M "
      "concurrent=0  # a guest\n");
  const auto tokens = ParseTokens(text, "file", {1, 2, 3});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 2u);
  EXPECT_EQ((*tokens)[0].name, "ada");
  EXPECT_EQ((*tokens)[0].role, Role::kAdmin);
  EXPECT_EQ((*tokens)[0].limits.requests_per_minute, 1);
  EXPECT_EQ((*tokens)[0].expires, absl::InfiniteFuture());
  EXPECT_EQ((*tokens)[1].role, Role::kRead);
  EXPECT_EQ((*tokens)[1].hash, HashToken("b"));
  EXPECT_EQ((*tokens)[1].limits.requests_per_minute, 60);
  EXPECT_EQ((*tokens)[1].limits.bytes_per_minute, 2 << 20);
  EXPECT_EQ((*tokens)[1].limits.concurrent, 0);
  EXPECT_EQ((*tokens)[1].expires,
            absl::FromCivil(absl::CivilDay(2027, 1, 31), absl::UTCTimeZone()));
}

TEST(TokenFile, Refuses) {
  const std::string hash = Hex("secret");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no token"},
      {"# nothing\n", "no token"},
      {"ada admin\n", "file:1: a field is missing"},
      {"\nad@ admin " + hash, "file:2: the name"},
      {std::string(65, 'a') + " admin " + hash, "the name"},
      {"ada root " + hash, "role"},
      {"ada admin " + hash.substr(1), "64 hexadecimal digits"},
      {"ada admin " + hash.substr(1) + "g", "64 hexadecimal digits"},
      {"ada admin " + hash + " expires=tomorrow", "expires=tomorrow"},
      {"ada admin " + hash + " concurrent=-1", "concurrent=-1"},
      {"ada admin " + hash + " requests_per_minute=1K", "1K"},
      {"ada admin " + hash + " bytes_per_minute=9999999999G", "9999999999G"},
      {"ada admin " + hash + " " + hash, "unknown option"},
      {"ada admin " + hash + "\nada read " + Hex("b"), "file:2: the name"},
      {"ada admin " + hash + "\nbob read " + hash, "file:2: the token"},
  };
  for (const auto& [text, says] : cases) {
    const auto tokens = ParseTokens(text, "file", {});
    ASSERT_FALSE(tokens.ok()) << text;
    EXPECT_EQ(tokens.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(tokens.status()), HasSubstr(says)) << text;
    EXPECT_THAT(Message(tokens.status()), Not(HasSubstr(hash))) << text;
  }
}

class AccessTest : public ::testing::Test {
 protected:
  AccessTest()
      : path_((std::filesystem::temp_directory_path() /
               absl::StrCat("cupola_tokens_", getpid()))
                  .string()) {}
  ~AccessTest() override { std::filesystem::remove(path_); }

  void Write(const std::string& text) { std::ofstream(path_) << text; }

  std::unique_ptr<Access> Open() {
    auto access = Access::Create({path_, {}});
    EXPECT_TRUE(access.ok()) << access.status();
    return access.ok() ? *std::move(access) : nullptr;
  }

  const std::string path_;
};

TEST_F(AccessTest, WithoutTokensEverybodyMayEverything) {
  const auto access = Access::Create({});
  ASSERT_TRUE(access.ok());
  const auto caller = (*access)->Authorize("ClearCache", "", "192.0.2.1");
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ(caller->client, "192.0.2.1");
}

TEST_F(AccessTest, WhoMayWhat) {
  Write(absl::StrCat("ada admin ", Hex("a-token"), "\nbob read ",
                     Hex("b-token"), "\nold admin ", Hex("o-token"),
                     " expires=2020-01-01\n"));
  const auto access = Open();
  ASSERT_NE(access, nullptr);
  const auto code = [&](const char* method, const std::string& authorization) {
    const auto caller = access->Authorize(method, authorization, "192.0.2.1");
    EXPECT_THAT(Message(caller.status()), Not(HasSubstr("-token")));
    return caller.status().code();
  };
  constexpr auto kOk = absl::StatusCode::kOk;
  constexpr auto kUnknown = absl::StatusCode::kUnauthenticated;
  constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
  EXPECT_EQ(code("GetFeatures", "Bearer a-token"), kOk);
  EXPECT_EQ(code("Unload", "bearer a-token "), kOk);
  EXPECT_EQ(code("GetFeatures", "Bearer b-token"), kOk);
  EXPECT_EQ(code("Unload", "Bearer b-token"), kDenied);
  EXPECT_EQ(code("NobodyKnowsThis", "Bearer b-token"), kDenied);
  for (const std::string bad :
       {"", "Bearer", "Bearer ", "Bearer c-token", "Bearer b-toke",
        "Bearer b-token2", "Basic b-token", "b-token", "Bearer o-token"}) {
    EXPECT_EQ(code("GetFeatures", bad), kUnknown) << bad;
  }
  const auto expired = access->Identify("Bearer o-token", "");
  EXPECT_THAT(Message(expired.status()), HasSubstr("\"old\" has expired"));
  const auto huge = access->Identify("Bearer " + std::string(4000, 'x'), "");
  EXPECT_EQ(huge.status().code(), kUnknown);
  EXPECT_THAT(Message(huge.status()), HasSubstr("4000"));
}

TEST_F(AccessTest, FollowsTheFile) {
  Write("ada read " + Hex("first") + "\n");
  const auto access = Open();
  ASSERT_NE(access, nullptr);
  EXPECT_TRUE(access->Identify("Bearer first", "").ok());
  Write("bob read " + Hex("second") + " concurrent=2\n");
  const auto becomes = [&](const char* token) {
    for (int i = 0; i < 500 && !access->Identify(token, "").ok(); ++i) {
      absl::SleepFor(absl::Milliseconds(20));
    }
    return access->Identify(token, "").ok();
  };
  EXPECT_TRUE(becomes("Bearer second"));
  EXPECT_FALSE(access->Identify("Bearer first", "").ok());
  Write("broken\n");
  absl::SleepFor(absl::Milliseconds(1200));  // two looks
  EXPECT_TRUE(access->Identify("Bearer second", "").ok());
  std::filesystem::remove(path_);
  absl::SleepFor(absl::Milliseconds(1200));
  EXPECT_TRUE(access->Identify("Bearer second", "").ok());
  EXPECT_FALSE(Access::Create({path_, {}}).ok());
}

TEST(AddressOfPeer, DropsThePort) {
  EXPECT_EQ(AddressOfPeer("ipv4:192.0.2.1:5000"), "192.0.2.1");
  EXPECT_EQ(AddressOfPeer("ipv6:%5B2001:db8::1%5D:5000"), "[2001:db8::1]");
  EXPECT_EQ(AddressOfPeer("unix:/run/x"), "unix:/run/x");
  EXPECT_EQ(AddressOfPeer(""), "");
}

TEST(AddressOfText, LooksLikeThatOfPeer) {
  EXPECT_EQ(AddressOfText("192.0.2.1"), "192.0.2.1");
  EXPECT_EQ(AddressOfText("::1"), "[::1]");
  EXPECT_EQ(AddressOfText("::ffff:192.0.2.1"), "192.0.2.1");
  EXPECT_EQ(AddressOfText(""), "");
}

TEST(Accounts, ANetworkOfIPv6IsOne) {
  const auto access = Access::Create({});
  ASSERT_TRUE(access.ok()) << access.status();
  const auto account = [&](const std::string& address) {
    const auto caller = (*access)->Identify("", address);
    EXPECT_TRUE(caller.ok()) << caller.status();
    EXPECT_EQ(caller->client, address);
    return caller->account;
  };
  EXPECT_EQ(account("[2001:db8:1:2:3::4]"), "[2001:db8:1:2::]/64");
  EXPECT_EQ(account("[2001:db8:1:2::]"), account("[2001:db8:1:2:ffff::1]"));
  EXPECT_NE(account("[2001:db8:1:2::]"), account("[2001:db8:1:3::]"));
  EXPECT_EQ(account("192.0.2.1"), "192.0.2.1");
  EXPECT_EQ(account("unix:/run/x"), "unix:/run/x");
}

class QuotasTest : public ::testing::Test {
 protected:
  absl::Status Enter(const Limits& limits, const std::string& client = "ada") {
    return quotas_.Enter(client, limits, now_);
  }
  // -1: none.
  static int RetryMilliseconds(const absl::Status& status) {
    const auto payload = status.GetPayload(kRetryDelayPayload);
    return payload.has_value() ? std::stoi(std::string(*payload)) : -1;
  }

  Quotas quotas_;
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
};

TEST_F(QuotasTest, Requests) {
  const Limits limits = {6, 0, 0};
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(Enter(limits).ok()) << i;
  const absl::Status refused = Enter(limits);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryMilliseconds(refused), 10'000);
  EXPECT_TRUE(Enter(limits, "bob").ok());  // each their own
  now_ += absl::Seconds(9.9);
  EXPECT_FALSE(Enter(limits).ok());
  now_ += absl::Seconds(0.2);
  EXPECT_TRUE(Enter(limits).ok());
  EXPECT_FALSE(Enter(limits).ok());
  now_ -= absl::Hours(1);  // a clock set back fills nothing
  EXPECT_FALSE(Enter(limits).ok());
}

TEST_F(QuotasTest, Concurrent) {
  const Limits limits = {0, 0, 2};
  EXPECT_TRUE(Enter(limits).ok());
  EXPECT_TRUE(Enter(limits).ok());
  const absl::Status refused = Enter(limits);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(RetryMilliseconds(refused), 0);
  quotas_.Leave("ada");
  EXPECT_TRUE(Enter(limits).ok());
}

TEST_F(QuotasTest, BytesMayMakeADebt) {
  const Limits limits = {0, 600, 0};
  EXPECT_TRUE(Enter(limits).ok());
  quotas_.CountBytes("ada", 1199);  // 599 more than there were
  const absl::Status refused = Enter(limits);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryMilliseconds(refused), 60'000);
  now_ += absl::Seconds(61);
  EXPECT_TRUE(Enter(limits).ok());
}

TEST_F(QuotasTest, ANewLimitStartsFull) {
  EXPECT_TRUE(Enter({0, 0, 2}).ok());
  quotas_.Leave("ada");
  EXPECT_TRUE(Enter({60, 600, 2}).ok());  // her token's line has changed
  quotas_.CountBytes("ada", 599);
  quotas_.Leave("ada");
  EXPECT_TRUE(Enter({60, 600, 2}).ok());
  quotas_.Leave("ada");
  // A lower one cuts what is left.
  EXPECT_TRUE(Enter({1, 600, 2}).ok());
  EXPECT_FALSE(Enter({1, 600, 2}).ok());
}

TEST_F(QuotasTest, ForgetsTheIdleAndBoundsTheRest) {
  const Limits limits = {60, 0, 0};
  for (int i = 0; i < 1 << 16; ++i) {
    const std::string client = absl::StrCat("c", i);
    ASSERT_TRUE(Enter(limits, client).ok());
    quotas_.Leave(client);
  }
  const absl::Status refused = Enter(limits, "one more");
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  now_ += absl::Seconds(2);
  EXPECT_TRUE(Enter(limits, "one more").ok());
}

}  // namespace
}  // namespace cupola::service
