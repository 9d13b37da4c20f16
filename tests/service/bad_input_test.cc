// What nobody should send: each request gets its code and a message that names
// what was wrong, and the server serves on.

#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cupola/v1/analysis.grpc.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/service/http_get.h"
#include "tests/service/proto_tensors.h"
#include "tests/service/server_fixture.h"

namespace cupola::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
  return message;
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kFailed = absl::StatusCode::kFailedPrecondition;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;

struct BadCase {
  std::string request;  // text format
  absl::StatusCode code;
  std::vector<std::string> says;
};

class BadInputTest : public ServerFixture {
 protected:
  // The server still answers.
  void TearDown() override {
    const auto answer = client().GetFeatures(FeaturesOf("still here"));
    EXPECT_TRUE(answer.ok()) << answer.status();
  }

  template <typename Answer>
  void Expect(const absl::StatusOr<Answer>& answer, const BadCase& bad) {
    SCOPED_TRACE(bad.request);
    ASSERT_FALSE(answer.ok());
    EXPECT_EQ(answer.status().code(), bad.code) << answer.status();
    for (const std::string& part : bad.says) {
      EXPECT_THAT(std::string(answer.status().message()), HasSubstr(part));
    }
  }

  // Sends raw bytes to a method; the final status.
  grpc::Status SendRaw(const std::string& method, const std::string& bytes) {
    const auto channel = grpc::CreateChannel(
        server().address(), grpc::InsecureChannelCredentials());
    grpc::GenericStub stub(channel);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    const auto call = stub.PrepareUnaryCall(&context, method, request, &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    return status;
  }
};

TEST_F(BadInputTest, Features) {
  const std::string prompt = "prompts { prompts { text: \"abc\" } } ";
  const std::string sae = "dictionary: \"tiny/sae\" ";
  const std::vector<BadCase> cases = {
      {prompt, kInvalid, {"dictionary"}},
      {sae, kInvalid, {"prompts or inputs"}},
      {"dictionary: \"nothing\" " + prompt, kNotFound, {"nothing", "tiny/sae"}},
      {"dictionary: \"tiny\" " + prompt, kNotFound, {"tiny"}},
      {"dictionary: \"tiny/sae:out\" " + prompt, kNotFound, {"tiny/sae"}},
      {"dictionary: \"broken/sae\" " + prompt, kFailed, {"config.json"}},
      {sae + "prompts { prompts { text: \"\" } }", kInvalid, {"prompts[0]"}},
      {sae + "prompts { prompts { tokens {} } }", kInvalid, {"prompts[0]"}},
      {sae + "prompts {}", kInvalid, {"prompts"}},
      {sae + "prompts { prompts { text: \"a\" } prompts { tokens "
             "{ ids: 1 ids: 257 } } }",
       kInvalid,
       {"257", "256"}},
      {sae + "prompts { prompts { tokens { ids: 4294967295 } } }",
       kInvalid,
       {"4294967295"}},
      {sae + "prompts { prompts { text: \"" + std::string(kTinyContext, 'x') +
           "\" } }",
       kInvalid,
       {"513", "512"}},
      {sae + prompt + "positions { every_prompt { values: 4 } }",
       kInvalid,
       {"position", "4"}},
      {sae + prompt + "positions { every_prompt { values: -5 } }",
       kInvalid,
       {"position", "-5"}},
      {sae + prompt +
           "positions { every_prompt { values: 9223372036854775807 } }",
       kInvalid,
       {"9223372036854775807"}},
      {sae + prompt +
           "positions { every_prompt { values: -9223372036854775808 } }",
       kInvalid,
       {"-9223372036854775808"}},
      {sae + prompt + "positions { per_prompt { lists {} lists {} } }",
       kInvalid,
       {"per_prompt", "2"}},
      {sae + prompt + "latents: 128", kInvalid, {"latents", "128"}},
      {sae + prompt + "latents: 4294967295", kInvalid, {"4294967295"}},
      {sae + prompt + "min_activation: nan", kInvalid, {"min_activation"}},
      {sae + prompt + "min_activation: -1", kInvalid, {"min_activation", "-1"}},
      {sae + "prompts { prompts { tokens { ids: 1 } } prepend_bos: true }",
       kInvalid,
       {"prepend_bos"}},
  };
  for (const BadCase& bad : cases) {
    Expect(client().GetFeatures(Parse<v1::FeaturesRequest>(bad.request)), bad);
  }
}

TEST_F(BadInputTest, Activations) {
  const std::string base =
      "model: \"tiny\" prompts { prompts { text: \"abc\" } } ";
  const std::vector<BadCase> cases = {
      {base, kInvalid, {"hooks"}},
      {base + "hooks: \"blocks.0.hook_nothing\"",
       kNotFound,
       {"blocks.0.hook_nothing"}},
      {base + "hooks: \"blocks.2.hook_resid_pre\"", kInvalid, {"2"}},
      {base + "hooks: \"blocks.99999999999999999999.hook_resid_pre\"",
       kNotFound,
       {"99999999999999999999"}},
      {base + "hooks: \"hook_embed\" dtype: INT64",
       kInvalid,
       {"dtype", "INT64"}},
      {"model: \"nothing\" hooks: \"hook_embed\" "
       "prompts { prompts { text: \"a\" } }",
       kNotFound,
       {"nothing", "tiny"}},
      {"model: \"broken\" hooks: \"hook_embed\" "
       "prompts { prompts { text: \"a\" } }",
       kFailed,
       {"config.json"}},
  };
  for (const BadCase& bad : cases) {
    Expect(client().GetActivations(Parse<v1::ActivationsRequest>(bad.request)),
           bad);
  }
}

TEST_F(BadInputTest, RowsOfTheWrongWidth) {
  v1::FeaturesRequest features;
  features.set_dictionary("tiny/sae");
  *features.mutable_inputs() =
      MakeTensor<float>(v1::FLOAT32, {1, 31}, std::vector<float>(31, 1));
  Expect(client().GetFeatures(features),
         {"inputs [1, 31]", kInvalid, {"31", "32"}});

  v1::ReconstructRequest rows;
  rows.set_dictionary("tiny/sae");
  *rows.mutable_features()->mutable_indptr() =
      MakeTensor<int64_t>(v1::INT64, {2}, {0, 1});
  *rows.mutable_features()->mutable_indices() =
      MakeTensor<uint32_t>(v1::UINT32, {1}, {0});
  *rows.mutable_features()->mutable_values() =
      MakeTensor<float>(v1::FLOAT32, {1}, {1});
  rows.mutable_features()->set_columns(129);
  Expect(client().Reconstruct(rows), {"columns 129", kInvalid, {"129", "128"}});
}

TEST_F(BadInputTest, TokenizeAndCatalog) {
  Expect(client().Tokenize(Parse<v1::TokenizeRequest>(
             "model: \"tiny\" prompts { prompts { tokens { ids: 257 } } }")),
         {"ids 257", kInvalid, {"257"}});
  Expect(client().Tokenize(Parse<v1::TokenizeRequest>(
             "model: \"no\" prompts { prompts { text: \"a\" } }")),
         {"model no", kNotFound, {"no", "tiny"}});
  Expect(client().Describe("no"), {"describe", kNotFound, {"no", "tiny/sae"}});
  Expect(client().Load("no"), {"load", kNotFound, {"no", "tiny/sae"}});
  Expect(client().Unload("no"), {"unload", kNotFound, {"no", "tiny/sae"}});
  Expect(client().SelfCheck("no"), {"check", kNotFound, {"no", "tiny/sae"}});
  Expect(client().SelfCheck("tiny"), {"check tiny", kInvalid, {"dictionary"}});
  // A half is loaded with its entry, as Describe tells of that.
  EXPECT_TRUE(client().Load("tiny/sae:out").ok());
  Expect(client().Load("broken"), {"load broken", kFailed, {"config.json"}});
  Expect(client().Load("tiny", static_cast<v1::Processing>(9)),
         {"load 9", kInvalid, {"processing is 9"}});
  Expect(client().Load("tiny/sae", v1::FOLDED),
         {"load folded", kInvalid, {"processing", "models only"}});
}

TEST_F(BadInputTest, LongNamesComeBackCut) {
  Expect(client().GetFeatures(FeaturesOf("a", std::string(1 << 20, 'n'))),
         {"a long name", kNotFound, {"nnn"}});
}

TEST_F(BadInputTest, TextThatIsNotUtf8) {
  // FeaturesRequest { dictionary: "d" prompts { prompts { text: "\xff" } } }
  const std::string bytes =
      std::string("\x0a\x01") + "d" + "\x12\x05\x0a\x03\x0a\x01\xff";
  const grpc::Status status = SendRaw("/cupola.v1.Analysis/GetFeatures", bytes);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("Prompt.text"));
  EXPECT_THAT(status.error_message(), HasSubstr("UTF-8"));
}

TEST_F(BadInputTest, GarbageToEveryMethod) {
  std::mt19937 random(11);
  for (const char* method :
       {"/cupola.v1.Analysis/Tokenize", "/cupola.v1.Analysis/GetActivations",
        "/cupola.v1.Analysis/GetFeatures", "/cupola.v1.Analysis/Reconstruct",
        "/cupola.v1.Catalog/Describe", "/cupola.v1.Catalog/Load",
        "/cupola.v1.Catalog/Unload", "/cupola.v1.Catalog/SelfCheck"}) {
    EXPECT_EQ(SendRaw(method, "\x0a\x7f").error_code(),
              grpc::StatusCode::INVALID_ARGUMENT)
        << method;
    for (int round = 0; round < 20; ++round) {
      std::string bytes(1 + random() % 200, '\0');
      for (char& c : bytes) c = static_cast<char>(random());
      const grpc::StatusCode code = SendRaw(method, bytes).error_code();
      EXPECT_TRUE(code == grpc::StatusCode::INVALID_ARGUMENT ||
                  code == grpc::StatusCode::NOT_FOUND)
          << method << " " << code;
    }
  }
  EXPECT_EQ(SendRaw("/cupola.v1.Analysis/Nothing", "").error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(BadInputTest, AMessageAboveTheLimit) {
  v1::FeaturesRequest request;
  request.set_dictionary("tiny/sae");
  request.mutable_inputs()->set_data(std::string(33 << 20, 'x'));
  Expect(client().GetFeatures(request),
         {"33 MiB", kExhausted, {"larger than max", "33554432"}});
}

TEST_F(BadInputTest, MoreTokensThanARequestMayHold) {
  // 2^18 tokens are the default limit; every prompt fits the context.
  v1::FeaturesRequest request;
  request.set_dictionary("tiny/sae");
  for (int i = 0; i < 513; ++i) {
    auto* ids = request.mutable_prompts()->add_prompts()->mutable_tokens();
    for (int64_t token = 0; token < kTinyContext; ++token) ids->add_ids(1);
  }
  Expect(client().GetFeatures(request),
         {"513 x 512", kExhausted, {"262656", "262144"}});
}

TEST_F(BadInputTest, ALargeBadMessageIsParsedAsWell) {
  // Above what is parsed where it arrives.
  const grpc::Status status =
      SendRaw("/cupola.v1.Analysis/GetFeatures", std::string(1 << 20, '\xff'));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

// A name is looked up, never opened.
TEST_F(BadInputTest, PathsForNames) {
  for (const std::string& name : std::vector<std::string>{
           "../tiny", "tiny/../tiny", "./tiny", "/etc/passwd",
           "../../../../etc/passwd", folder() + "/tiny", "tiny/", "tiny//sae",
           "tiny/sae/../sae", std::string("tiny\0", 5)}) {
    Expect(client().Describe(name), {name, kNotFound, {"tiny/sae"}});
    Expect(client().Load(name), {name, kNotFound, {"tiny/sae"}});
    Expect(client().Unload(name), {name, kNotFound, {"tiny/sae"}});
    Expect(client().GetFeatures(FeaturesOf("a", name)),
           {name, kNotFound, {"tiny/sae"}});
  }
}

TEST_F(BadInputTest, HttpToTheGrpcPort) {
  for (const std::string& request : std::vector<std::string>{
           "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
           "POST /cupola.v1.Analysis/Tokenize HTTP/1.1\r\nHost: x\r\n"
           "Content-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
           // The beginning of a TLS connection.
           std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11),
           // HTTP/2 whose first frame is none, and one of 16 MiB.
           "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string(64, '\xff'),
           std::string(1 << 16, 'x')}) {
    HttpExchange(server().grpc_port(), request);
  }
  EXPECT_THAT(HttpGet(server().http_port(), "/healthz"),
              StartsWith("HTTP/1.1 200"));
}

}  // namespace
}  // namespace cupola::testing
