#include "client/bench/mix.h"

#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/bench/random.h"

namespace cupola::bench {
namespace {

// Keeps the generators of repeated prompts apart from those of the others.
constexpr uint64_t kRepeatedStream = 0x6375706f6c610001;
constexpr uint64_t kOwnStream = 0x6375706f6c610002;

absl::Status Refuse(absl::string_view field, absl::string_view value,
                    absl::string_view accepted) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; accepted: ", accepted));
}

// A generator for each pair of numbers.
Random RandomOf(uint64_t seed, uint64_t stream, int64_t i) {
  Random outer(seed ^ stream);
  return Random(outer.Next() + Random(static_cast<uint64_t>(i)).Next());
}

}  // namespace

const char* KindName(Kind kind) {
  static constexpr const char* kNames[kKinds] = {"features", "ablate", "run"};
  return kNames[static_cast<int>(kind)];
}

absl::StatusOr<Mix> Mix::Create(MixOptions options) {
  int64_t total = 0;
  for (int k = 0; k < kKinds; ++k) {
    const int64_t weight = options.weights[k];
    if (weight < 0 || weight > 1'000'000) {
      return Refuse(KindName(static_cast<Kind>(k)), absl::StrCat(weight),
                    "a weight from 0 to 1000000");
    }
    total += weight;
  }
  if (total == 0) {
    return Refuse("the sum of features, ablate and run", "0", "more");
  }
  if (options.lengths.empty()) {
    return Refuse("lengths", "empty", "one or more numbers of tokens");
  }
  for (const int64_t length : options.lengths) {
    // An ablation reads the last token but one.
    if (length < 2) {
      return Refuse("lengths", absl::StrCat(length), "at least 2 tokens");
    }
  }
  if (!(options.repeat >= 0 && options.repeat <= 1)) {
    return Refuse("repeat", absl::StrCat(options.repeat), "from 0 to 1");
  }
  if (options.repeated_prompts < 1) {
    return Refuse("repeated_prompts", absl::StrCat(options.repeated_prompts),
                  "at least 1");
  }
  if (options.vocabulary < 2) {
    return Refuse("vocabulary", absl::StrCat(options.vocabulary), "at least 2");
  }
  return Mix(std::move(options));
}

Mix::Mix(MixOptions options)
    : options_(std::move(options)),
      total_weight_(std::accumulate(options_.weights.begin(),
                                    options_.weights.end(), int64_t{0})) {}

Question Mix::At(int64_t i) const {
  Question question;
  Random random = RandomOf(options_.seed, kOwnStream, i);
  question.repeated = random.Unit() <= options_.repeat;
  if (question.repeated) {
    const auto prompts = static_cast<uint64_t>(options_.repeated_prompts);
    const auto chosen = static_cast<int64_t>(random.Below(prompts));
    random = RandomOf(options_.seed, kRepeatedStream, chosen);
  }
  // A repeated prompt is always asked the same thing.
  auto weight =
      static_cast<int64_t>(random.Below(static_cast<uint64_t>(total_weight_)));
  int kind = 0;
  while (weight >= options_.weights[kind]) weight -= options_.weights[kind++];
  question.kind = static_cast<Kind>(kind);
  question.tokens.resize(static_cast<size_t>(
      options_.lengths[random.Below(options_.lengths.size())]));
  for (uint32_t& token : question.tokens) {
    token = static_cast<uint32_t>(
        random.Below(static_cast<uint64_t>(options_.vocabulary)));
  }
  return question;
}

}  // namespace cupola::bench
