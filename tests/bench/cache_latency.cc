// How long a cached answer takes from the C++ client:
//
//   cache_latency ADDRESS MODEL HOOK TOKENS CALLS
//
// Asks for the activations of TOKENS tokens at HOOK until the answer comes from
// the cache, then CALLS times more, and prints one line: the answer's bytes and
// the 50th, 90th and 99th percentile in milliseconds.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"

namespace cupola {
namespace {

// The cache is filled in the background; far fewer tries do.
constexpr int kMaxFillingCalls = 1000;

struct Arguments {
  std::string address, model, hook;
  int tokens = 0, calls = 0;
};

v1::ActivationsRequest MakeRequest(const Arguments& arguments) {
  v1::ActivationsRequest request;
  request.set_model(arguments.model);
  request.add_hooks(arguments.hook);
  v1::TokenIds* ids =
      request.mutable_prompts()->add_prompts()->mutable_tokens();
  for (int i = 0; i < arguments.tokens; ++i) ids->add_ids(100 + i);
  return request;
}

absl::Status Measure(const Arguments& arguments) {
  auto client = Client::Connect(arguments.address);
  if (!client.ok()) return client.status();
  const v1::ActivationsRequest request = MakeRequest(arguments);
  int64_t bytes = 0;
  bool cached = false;
  for (int i = 0; i < kMaxFillingCalls && !cached; ++i) {
    const auto answer = (*client)->GetActivations(request);
    if (!answer.ok()) return answer.status();
    cached = answer->provenance().from_cache();
    bytes = static_cast<int64_t>(answer->hooks(0).prompts(0).data().size());
  }
  if (!cached) return absl::InternalError("the answer is never cached");

  std::vector<double> milliseconds;
  for (int i = 0; i < arguments.calls; ++i) {
    const absl::Time start = absl::Now();
    const auto answer = (*client)->GetActivations(request);
    milliseconds.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
    if (!answer.ok()) return answer.status();
    if (!answer->provenance().from_cache()) {
      return absl::InternalError("an answer was computed again");
    }
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  const auto percentile = [&milliseconds](size_t p) {
    return milliseconds[(milliseconds.size() - 1) * p / 100];
  };
  std::printf("%lld %.3f %.3f %.3f\n", static_cast<long long>(bytes),
              percentile(50), percentile(90), percentile(99));
  return absl::OkStatus();
}

}  // namespace
}  // namespace cupola

int main(int argc, char** argv) {
  cupola::Arguments arguments;
  if (argc != 6 || !absl::SimpleAtoi(argv[4], &arguments.tokens) ||
      !absl::SimpleAtoi(argv[5], &arguments.calls) || arguments.calls < 1) {
    std::fputs("usage: cache_latency ADDRESS MODEL HOOK TOKENS CALLS\n",
               stderr);
    return 2;
  }
  arguments.address = argv[1];
  arguments.model = argv[2];
  arguments.hook = argv[3];
  const absl::Status status = cupola::Measure(arguments);
  if (!status.ok()) {
    std::fprintf(stderr, "cache_latency: %s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
