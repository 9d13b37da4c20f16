#include "server/engine/self_check.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/engine/sample_text.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

// How far a measured value may be from a published one, which was taken on
// other text: half or double for L0, 0.1 and half again for FVU.
constexpr double kL0Factor = 2.0;
constexpr double kFvuFactor = 1.5, kFvuSlack = 0.1;

// The averages over all rows but those of position 0.
struct Rest {
  double fvu = 0, l0 = 0;
  int64_t tokens = 0;
};

template <typename T>
T Value(const Array& array, int64_t i) {
  T value;
  std::memcpy(&value, array.bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

// Calls `use(answer, row)` for every row but those of position 0.
template <typename Answer, typename Use>
void ForRest(const std::vector<Answer>& answers, Use use) {
  for (const Answer& answer : answers) {
    for (int64_t row = 0; row < answer.position.shape[0]; ++row) {
      if (Value<int32_t>(answer.position, row) != 0) use(answer, row);
    }
  }
}

Rest WithoutFirstPositions(const std::vector<ReconstructAnswer>& answers) {
  const int64_t width = answers.front().target.shape[1];
  Rest rest;
  std::vector<double> mean(width);
  double error = 0, variance = 0;
  ForRest(answers, [&](const ReconstructAnswer& answer, int64_t row) {
    ++rest.tokens;
    rest.l0 += Value<float>(answer.l0, row);
    error += Value<float>(answer.squared_error, row);
    for (int64_t d = 0; d < width; ++d) {
      mean[d] += Value<float>(answer.target, row * width + d);
    }
  });
  for (double& value : mean) value /= rest.tokens;
  ForRest(answers, [&](const ReconstructAnswer& answer, int64_t row) {
    for (int64_t d = 0; d < width; ++d) {
      const double x = Value<float>(answer.target, row * width + d) - mean[d];
      variance += x * x;
    }
  });
  rest.l0 /= rest.tokens;
  rest.fvu = error / variance;
  return rest;
}

// One dictionary's measuring, a text after the other.
struct Measuring {
  std::string name;
  Prompts prompts;
  SelfCheckAsk ask;
  SelfCheckAsk::Done<Measurement> done;
  std::vector<ReconstructAnswer> rebuilt;
  std::vector<FeaturesAnswer> fired;
};

void AskNext(const std::shared_ptr<Measuring>& measuring) {
  const size_t next = measuring->fired.size();
  if (next == measuring->prompts.prompts.size()) {
    return measuring->done(Measure(measuring->rebuilt, measuring->fired));
  }
  ReconstructRequest reconstruct;
  reconstruct.dictionary = measuring->name;
  reconstruct.prompts = {{measuring->prompts.prompts[next]}, {}};
  FeaturesRequest features;
  features.dictionary = measuring->name;
  features.prompts = reconstruct.prompts;
  const auto answered = [measuring](absl::StatusOr<FeaturesAnswer> fired) {
    if (!fired.ok()) return measuring->done(fired.status());
    measuring->fired.push_back(*std::move(fired));
    AskNext(measuring);
  };
  measuring->ask.reconstruct(
      std::move(reconstruct), [=](absl::StatusOr<ReconstructAnswer> rebuilt) {
        if (!rebuilt.ok()) return measuring->done(rebuilt.status());
        rebuilt->reconstruction = {};  // only its error is of use
        measuring->rebuilt.push_back(*std::move(rebuilt));
        measuring->ask.features(features, answered);
      });
}

void MeasureOne(const std::string& name, const Prompts& prompts,
                const SelfCheckAsk& ask, SelfCheckAsk::Done<Measurement> done) {
  auto measuring = std::make_shared<Measuring>();
  measuring->name = name;
  measuring->prompts = prompts;
  measuring->ask = ask;
  measuring->done = std::move(done);
  AskNext(measuring);
}

}  // namespace

absl::StatusOr<Prompts> SamplePrompts(const model::ModelSource& model,
                                      const dictionary::Manifest& manifest) {
  const model::Tokenizer& tokenizer = model.tokenizer();
  const bool bos =
      tokenizer.bos_id().has_value() &&
      (manifest.declares_prepend_bos ? manifest.prepend_bos
                                     : model.config().default_prepend_bos);
  int64_t context = model.config().n_ctx;
  if (manifest.context_size > 0) {
    context = std::min(context, manifest.context_size);
  }
  Prompts prompts;
  for (const std::string& text : SampleTexts()) {
    ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer.Encode(text));
    if (bos) ids.insert(ids.begin(), *tokenizer.bos_id());
    if (static_cast<int64_t>(ids.size()) > context) ids.resize(context);
    prompts.prompts.push_back({.is_text = false, .text = {}, .ids = ids});
  }
  return prompts;
}

Measurement Measure(const std::vector<ReconstructAnswer>& reconstructed,
                    const std::vector<FeaturesAnswer>& features) {
  const Rest rest = WithoutFirstPositions(reconstructed);
  std::unordered_set<uint32_t> alive;
  ForRest(features, [&](const FeaturesAnswer& answer, int64_t row) {
    const SparseArrays& rows = answer.features;
    const int64_t end = Value<int64_t>(rows.indptr, row + 1);
    for (int64_t i = Value<int64_t>(rows.indptr, row); i < end; ++i) {
      alive.insert(Value<uint32_t>(rows.indices, i));
    }
  });
  Measurement measured;
  measured.tokens = rest.tokens;
  measured.l0 = rest.l0;
  measured.fvu = rest.fvu;
  measured.dead_latents =
      features.front().features.columns - static_cast<int64_t>(alive.size());
  return measured;
}

void CheckAgainstManifest(
    const std::string& entry, const model::ModelSource& model,
    const dictionary::Manifest& manifest, const SelfCheckAsk& ask,
    std::function<void(absl::StatusOr<SelfCheckResult>)> done) {
  const absl::StatusOr<Prompts> prompts = SamplePrompts(model, manifest);
  if (!prompts.ok()) return done(prompts.status());
  const auto out_measured = [=](const Measurement& in,
                                absl::StatusOr<Measurement> out) {
    if (!out.ok()) return done(out.status());
    // What a catalog expects of a pair is said of its input half.
    dictionary::Manifest unexpected = manifest;
    unexpected.expected_l0 = unexpected.expected_fvu = std::nullopt;
    SelfCheckResult result{in, *out, Warnings(manifest, in, "input half: ")};
    for (std::string& warning : Warnings(unexpected, *out, "output half: ")) {
      result.warnings.push_back(std::move(warning));
    }
    done(std::move(result));
  };
  const auto in_measured = [=](absl::StatusOr<Measurement> in) {
    if (!in.ok()) return done(in.status());
    if (manifest.kind != dictionary::Kind::kPair) {
      return done(SelfCheckResult{*in, {}, Warnings(manifest, *in, "")});
    }
    MeasureOne(absl::StrCat(entry, ":out"), *prompts, ask,
               [out_measured, in = *in](absl::StatusOr<Measurement> out) {
                 out_measured(in, std::move(out));
               });
  };
  MeasureOne(entry, *prompts, ask, in_measured);
}

std::vector<std::string> Warnings(const dictionary::Manifest& manifest,
                                  const Measurement& measured,
                                  const std::string& which) {
  std::vector<std::string> warnings;
  std::optional<double> l0 = manifest.expected_l0;
  if (!l0.has_value() && manifest.k > 0) l0 = manifest.k;
  if (l0.has_value() &&
      (measured.l0 > *l0 * kL0Factor || measured.l0 < *l0 / kL0Factor)) {
    warnings.push_back(
        absl::StrFormat("%sL0 is %.1f on the sample text; expected %.1f", which,
                        measured.l0, *l0));
  }
  const double fvu = manifest.expected_fvu.has_value()
                         ? *manifest.expected_fvu * kFvuFactor + kFvuSlack
                         : 1.0;
  if (!(measured.fvu <= fvu)) {
    warnings.push_back(absl::StrFormat(
        "%sFVU is %.3f on the sample text; %s. Check the hook point, the tap, "
        "the processing and the model",
        which, measured.fvu,
        manifest.expected_fvu.has_value()
            ? absl::StrFormat("expected %.3f", *manifest.expected_fvu)
            : std::string("the mean alone reaches 1")));
  }
  return warnings;
}

}  // namespace cupola::engine
