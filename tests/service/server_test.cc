// The whole server, started as a user starts it, on a tiny random model.

#include <atomic>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "cupola/v1/analysis.grpc.pb.h"
#include "cupola/v1/catalog.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/files/tiny_model.h"
#include "tests/service/http_get.h"
#include "tests/service/proto_tensors.h"
#include "tests/service/server_fixture.h"

namespace cupola::testing {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Not;

class ServerTest : public ServerFixture {};

TEST_F(ServerTest, TheCatalogTellsWhatIsThere) {
  const auto list = client().List();
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->models_size(), 2);
  const v1::ModelInfo& tiny = list->models(0);
  EXPECT_EQ(tiny.name(), "tiny");
  EXPECT_EQ(tiny.state(), v1::RESIDENT);
  EXPECT_EQ(tiny.family(), "gpt2");
  EXPECT_EQ(tiny.n_layers(), 2);
  EXPECT_EQ(tiny.d_model(), kTinyWidth);
  EXPECT_EQ(tiny.d_vocab(), kTinyVocabulary);
  EXPECT_EQ(tiny.n_ctx(), kTinyContext);
  EXPECT_EQ(tiny.bos_token_id(), static_cast<uint32_t>(kTinyBos));
  EXPECT_EQ(tiny.digest().size(), 32u);
  EXPECT_EQ(tiny.hook_points_size(), 0);
  EXPECT_GT(tiny.resident_bytes(), 0);
  // A broken file fails its entry and nothing else.
  EXPECT_EQ(list->models(1).state(), v1::FAILED);
  EXPECT_THAT(list->models(1).failure(), HasSubstr("config.json"));
  ASSERT_EQ(list->dictionaries_size(), 2);
  EXPECT_EQ(list->dictionaries(0).d_sae(), kTinyLatents);
  EXPECT_EQ(list->dictionaries(0).hook_in(), "blocks.1.hook_resid_pre");
  EXPECT_EQ(list->dictionaries(0).normalize_activations(), "none");
  EXPECT_TRUE(list->dictionaries(0).apply_b_dec_to_input());
  EXPECT_EQ(list->dictionaries(1).state(), v1::FAILED);
}

TEST_F(ServerTest, DescribeListsHookPoints) {
  const auto entry = client().Describe("tiny");
  ASSERT_TRUE(entry.ok()) << entry.status();
  std::map<std::string, std::vector<int64_t>> hooks;
  for (const auto& hook : entry->model().hook_points()) {
    hooks[hook.name()] = {hook.shape().begin(), hook.shape().end()};
  }
  EXPECT_THAT(hooks["blocks.1.hook_resid_pre"], ElementsAre(kTinyWidth));
  EXPECT_THAT(hooks["blocks.0.attn.hook_z"], ElementsAre(4, kTinyWidth / 4));
  EXPECT_EQ(hooks.count("blocks.2.hook_resid_pre"), 0u);
}

TEST_F(ServerTest, Tokenize) {
  v1::TokenizeRequest request;
  request.set_model("tiny");
  request.mutable_prompts()->add_prompts()->set_text("a\xc3\xa9");
  request.mutable_prompts()->set_prepend_bos(true);
  const auto answer = client().Tokenize(request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(answer->prepended_bos());
  ASSERT_EQ(answer->prompts_size(), 1);
  EXPECT_THAT(answer->prompts(0).ids(), ElementsAre(kTinyBos, 'a', 0xC3, 0xA9));
  EXPECT_THAT(answer->prompts(0).pieces(),
              ElementsAre("<|endoftext|>", "a", "\xc3", "\xa9"));
}

TEST_F(ServerTest, FeaturesTwiceAndTheSecondIsCached) {
  const v1::FeaturesRequest request = FeaturesOf("cached or not");
  const auto first = client().GetFeatures(request);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto indptr = Values<int64_t>(first->features().indptr().data());
  ASSERT_EQ(indptr.size(), 15u);  // BOS and 13 bytes
  EXPECT_GT(indptr.back(), 0);
  EXPECT_THAT(Values<float>(first->features().values().data()), Each(Gt(0)));
  EXPECT_EQ(first->features().columns(), kTinyLatents);
  EXPECT_FALSE(first->provenance().from_cache());
  EXPECT_EQ(first->provenance().token_ids(0).ids_size(), 14);
  EXPECT_EQ(first->provenance().model(), "tiny");
  EXPECT_EQ(first->provenance().dictionary(), "tiny/sae");

  const auto second = client().GetFeatures(request);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(second->provenance().from_cache());
  EXPECT_EQ(second->features().SerializeAsString(),
            first->features().SerializeAsString());
  EXPECT_EQ(second->position().data(), first->position().data());
}

TEST_F(ServerTest, ALargeAnswerIsChunkedAndWhole) {
  // 64 prompts of 64 tokens, 32 wide: 512 KiB a hook; four hooks.
  v1::ActivationsRequest request;
  request.set_model("tiny");
  for (int i = 0; i < 64; ++i) {
    request.mutable_prompts()->add_prompts()->set_text(
        std::string(63, static_cast<char>('!' + i)));
  }
  for (const char* hook :
       {"resid_pre0", "resid_post0", "resid_post1", "hook_embed"}) {
    request.add_hooks(hook);
  }
  const auto whole = client().GetActivations(request);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_GT(whole->provenance().chunked_bytes(), 2 << 20);
  ASSERT_EQ(whole->hooks_size(), 4);
  EXPECT_EQ(whole->hooks(0).name(), "blocks.0.hook_resid_pre");

  // The same prompt alone fits one message; the numbers are the same up to what
  // batching may change (float32 rounding of sums over 32 and 128 terms, far
  // below 1e-4).
  v1::ActivationsRequest one = request;
  one.mutable_prompts()->mutable_prompts()->DeleteSubrange(0, 63);
  const auto alone = client().GetActivations(one);
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(alone->provenance().chunked_bytes(), 0);
  for (int hook = 0; hook < 4; ++hook) {
    const auto expected = Values<float>(alone->hooks(hook).prompts(0).data());
    const auto got = Values<float>(whole->hooks(hook).prompts(63).data());
    ASSERT_EQ(expected.size(), 64u * kTinyWidth);
    EXPECT_THAT(got,
                ::testing::Pointwise(::testing::FloatNear(1e-4f), expected));
  }
}

TEST_F(ServerTest, ReconstructFromRows) {
  const auto features = client().GetFeatures(FeaturesOf("rows"));
  ASSERT_TRUE(features.ok()) << features.status();
  v1::ReconstructRequest request;
  request.set_dictionary("tiny/sae");
  *request.mutable_features() = features->features();
  const auto decoded = client().Reconstruct(request);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->reconstruction().shape(), ElementsAre(5, kTinyWidth));
  EXPECT_FALSE(decoded->has_target());

  v1::ReconstructRequest whole;
  whole.set_dictionary("tiny/sae");
  whole.mutable_prompts()->add_prompts()->set_text("rows");
  const auto reconstructed = client().Reconstruct(whole);
  ASSERT_TRUE(reconstructed.ok()) << reconstructed.status();
  EXPECT_THAT(reconstructed->target().shape(), ElementsAre(5, kTinyWidth));
  EXPECT_GT(reconstructed->mean_l0(), 0);
  // The same sums of at most 128 float32 products, perhaps in another order.
  EXPECT_THAT(
      Values<float>(reconstructed->reconstruction().data()),
      ::testing::Pointwise(::testing::FloatNear(1e-4f),
                           Values<float>(decoded->reconstruction().data())));
}

TEST_F(ServerTest, UnloadAndLoadAgain) {
  const auto unloaded = client().Unload("tiny/sae");
  ASSERT_TRUE(unloaded.ok()) << unloaded.status();
  EXPECT_EQ(unloaded->dictionary().state(), v1::EVICTED);
  EXPECT_EQ(unloaded->dictionary().resident_bytes(), 0);
  const auto loaded = client().Load("tiny/sae");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->dictionary().state(), v1::RESIDENT);
}

TEST_F(ServerTest, SelfCheckMeasures) {
  // Once by itself after the load, and again when asked.
  while (client().Describe("tiny/sae")->dictionary().measured().tokens() == 0) {
    absl::SleepFor(absl::Milliseconds(1));
  }

  const auto checked = client().SelfCheck("tiny/sae");
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_GT(checked->dictionary().measured().tokens(), 0);
  EXPECT_GT(checked->dictionary().measured().l0(), 0);
}

TEST_F(ServerTest, AdminTellsLimitsAndClearsTheCache) {
  const auto info = client().GetServerInfo();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->max_message_bytes(), 32 << 20);
  EXPECT_GT(info->requests(), 0);
  EXPECT_THAT(info->devices(), ElementsAre("cpu"));
  EXPECT_FALSE(info->version().empty());

  const v1::FeaturesRequest request = FeaturesOf("clear me");
  ASSERT_TRUE(client().GetFeatures(request).ok());
  ASSERT_TRUE(client().GetFeatures(request)->provenance().from_cache());
  ASSERT_TRUE(client().GetCacheStatistics()->enabled());
  ASSERT_TRUE(client().ClearCache().ok());
  EXPECT_FALSE(client().GetFeatures(request)->provenance().from_cache());
}

TEST_F(ServerTest, MetricsTellWhatHappened) {
  ASSERT_TRUE(client().GetFeatures(FeaturesOf("metrics")).ok());
  ASSERT_FALSE(client().GetFeatures(FeaturesOf("x", "nothing")).ok());
  const std::string text = HttpGet(server().http_port(), "/metrics");
  for (const char* sample :
       {"cupola_requests_total{code=\"OK\",method=\"GetFeatures\",model="
        "\"tiny\"} ",
        "cupola_requests_total{code=\"NOT_FOUND\",method=\"GetFeatures\",model="
        "\"\"} ",
        "cupola_request_seconds_bucket{method=\"GetFeatures\",le=\"",
        "cupola_queue_seconds_count{method=\"GetFeatures\"} ",
        "cupola_compute_seconds_count{method=\"GetFeatures\"} ",
        "cupola_serialize_seconds_count{method=\"GetFeatures\"} ",
        "cupola_batch_tokens_count{device=\"cpu\"} ",
        "cupola_cache_lookups_total{result=\"miss\",tier=\"disk\"} ",
        "cupola_cache_bytes{tier=\"disk\"} ",
        "cupola_resident_bytes{kind=\"model\",name=\"tiny\"} ",
        "cupola_resident_bytes{kind=\"dictionary\",name=\"tiny/sae\"} ",
        "cupola_load_seconds_count{name=\"tiny\"} ",
        "cupola_loads_total{name=\"broken\",result=\"failed\"} ",
        "cupola_queue_depth{", "cupola_build_info{"}) {
    EXPECT_THAT(text, HasSubstr(sample));
  }
}

TEST_F(ServerTest, ALogLinePerRequestAndNoPrompt) {
  const std::string secret = "Zanzibar";
  v1::Analysis::Stub stub(grpc::CreateChannel(
      server().address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  const std::string header = "00-" + trace + "-00f067aa0ba902b7-01";
  context.AddMetadata("traceparent", header);
  const auto reader = stub.GetFeatures(&context, FeaturesOf(secret));
  v1::FeaturesResponse message;
  while (reader->Read(&message)) {
  }
  ASSERT_TRUE(reader->Finish().ok());
  const auto& echoed = context.GetServerInitialMetadata();
  ASSERT_EQ(echoed.count("traceparent"), 1u);
  EXPECT_EQ(echoed.find("traceparent")->second, header);

  // The log has a thread of its own: wait for the line, not for a time.
  nlohmann::json found;
  while (found.is_null()) {
    std::istringstream lines(ReadWhole(folder() + "/log"));
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line, nullptr, false);
      if (json.is_object() && json.value("trace_id", "") == trace) {
        found = json;
      }
    }
  }
  EXPECT_EQ(found["event"], "request");
  EXPECT_EQ(found["method"], "GetFeatures");
  EXPECT_EQ(found["code"], "OK");
  EXPECT_EQ(found["model"], "tiny");
  EXPECT_EQ(found["dictionary"], "tiny/sae");
  EXPECT_EQ(found["prompts"], 1);
  EXPECT_EQ(found["tokens"], 9);
  EXPECT_TRUE(found["queue_seconds"].is_number());
  EXPECT_TRUE(found["compute_seconds"].is_number());
  EXPECT_THAT(ReadWhole(folder() + "/log"), Not(HasSubstr(secret)));
  EXPECT_THAT(HttpGet(server().http_port(), "/metrics"),
              Not(HasSubstr(secret)));
}

TEST_F(ServerTest, WhatIsNoTraceIsNotSentBack) {
  v1::Catalog::Stub stub(grpc::CreateChannel(
      server().address(), grpc::InsecureChannelCredentials()));
  for (const char* header : {"", "nonsense", "00-0-0-01"}) {
    grpc::ClientContext context;
    context.AddMetadata("traceparent", header);
    v1::ListResponse list;
    ASSERT_TRUE(stub.List(&context, v1::ListRequest(), &list).ok());
    EXPECT_EQ(context.GetServerInitialMetadata().count("traceparent"), 0u)
        << header;
  }
}

TEST_F(ServerTest, ManyClientsAtOnce) {
  std::vector<std::thread> clients;
  std::atomic<int> answered{0};
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&, i] {
      const auto own = server().Connect();
      for (int round = 0; round < 20; ++round) {
        const auto answer = own->GetFeatures(FeaturesOf(
            "client " + std::to_string(i) + " round " + std::to_string(round)));
        if (answer.ok() && answer->features().columns() == kTinyLatents) {
          ++answered;
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 8 * 20);
}

}  // namespace
}  // namespace cupola::testing
