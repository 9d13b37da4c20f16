#include "server/engine/self_check.h"

#include <algorithm>
#include <cstring>
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

// Drops the rows of position 0 and computes the two averages over the others.
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

Rest WithoutFirstPositions(const ReconstructAnswer& answer) {
  const int64_t rows = answer.l0.shape[0];
  const int64_t width = answer.target.shape[1];
  Rest rest;
  std::vector<double> mean(width);
  double error = 0;
  for (int64_t r = 0; r < rows; ++r) {
    if (Value<int32_t>(answer.position, r) == 0) continue;
    ++rest.tokens;
    rest.l0 += Value<float>(answer.l0, r);
    error += Value<float>(answer.squared_error, r);
    for (int64_t d = 0; d < width; ++d) {
      mean[d] += Value<float>(answer.target, r * width + d);
    }
  }
  for (double& value : mean) value /= rest.tokens;
  double variance = 0;
  for (int64_t r = 0; r < rows; ++r) {
    if (Value<int32_t>(answer.position, r) == 0) continue;
    for (int64_t d = 0; d < width; ++d) {
      const double x = Value<float>(answer.target, r * width + d) - mean[d];
      variance += x * x;
    }
  }
  rest.l0 /= rest.tokens;
  rest.fvu = error / variance;
  return rest;
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

Measurement Measure(const ReconstructAnswer& reconstructed,
                    const FeaturesAnswer& features) {
  const Rest rest = WithoutFirstPositions(reconstructed);
  std::unordered_set<uint32_t> alive;
  for (int64_t r = 0; r + 1 < features.features.indptr.shape[0]; ++r) {
    if (Value<int32_t>(features.position, r) == 0) continue;
    const int64_t end = Value<int64_t>(features.features.indptr, r + 1);
    for (int64_t i = Value<int64_t>(features.features.indptr, r); i < end;
         ++i) {
      alive.insert(Value<uint32_t>(features.features.indices, i));
    }
  }
  Measurement measured;
  measured.tokens = rest.tokens;
  measured.l0 = rest.l0;
  measured.fvu = rest.fvu;
  measured.dead_latents = features.features.columns - alive.size();
  return measured;
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
