#include "server/analysis/coactivations.h"

#include <utility>

#include "server/analysis/accumulator.h"
#include "server/analysis/option_checks.h"
#include "server/analysis/state_io.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

static_assert(Accumulator<Coactivations>);

constexpr int64_t kMaxLatents = int64_t{1} << 24, kMaxSample = 1 << 16;

std::variant<Coactivation, PairSample> Zero(
    const CoactivationsOptions& options) {
  using Pairs = std::variant<Coactivation, PairSample>;
  if (options.sample > 0) {
    return Pairs(std::in_place_type<PairSample>,
                 PairSampleOptions{options.latents, options.sample});
  }
  return Pairs(std::in_place_type<Coactivation>,
               CoactivationOptions{options.latents, options.products});
}

}  // namespace

absl::Status CheckOptions(const CoactivationsOptions& options) {
  RETURN_IF_ERROR(CheckNumber("latents", options.latents, 1, kMaxLatents));
  return CheckNumber("sample", options.sample, 0, kMaxSample);
}

Coactivations::Coactivations(const CoactivationsOptions& options)
    : options_(options), pairs_(Zero(options)) {}

double Coactivations::Bytes(const CoactivationsOptions& options) {
  return options.sample > 0
             ? PairSample::Bytes({options.latents, options.sample})
             : Coactivation::Bytes({options.latents, options.products});
}

absl::Status Coactivations::Add(const SparseView& rows,
                                const TokenPlaces& places) {
  if (auto* exact = std::get_if<Coactivation>(&pairs_)) return exact->Add(rows);
  std::get<PairSample>(pairs_).Add(rows, places);
  return absl::OkStatus();
}

absl::Status Coactivations::Merge(const Coactivations& other) {
  if (!(other.options_ == options_)) {
    return absl::InvalidArgumentError(
        "co-activations of other options cannot be merged");
  }
  return std::visit(
      [&other](auto& pairs) {
        return pairs.Merge(
            std::get<std::decay_t<decltype(pairs)>>(other.pairs_));
      },
      pairs_);
}

absl::Status Coactivations::Save(storage::StateWriter* state) const {
  RETURN_IF_ERROR(state->AppendValue(options_.sample));
  return std::visit([state](const auto& pairs) { return pairs.Save(state); },
                    pairs_);
}

absl::Status Coactivations::Restore(storage::StateReader* state) {
  RETURN_IF_ERROR(RestoreSame(state, options_.sample));
  return std::visit([state](auto& pairs) { return pairs.Restore(state); },
                    pairs_);
}

void Coactivations::Finish() {
  if (auto* exact = std::get_if<Coactivation>(&pairs_)) exact->Finish();
}

int64_t Coactivations::tokens() const {
  return std::visit([](const auto& pairs) { return pairs.tokens(); }, pairs_);
}

absl::Status Coactivations::CheckMeasure(PairMeasure measure) const {
  const bool of_products =
      measure == PairMeasure::kPearson || measure == PairMeasure::kCosine;
  if (!of_products || (options_.sample == 0 && options_.products)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "measure: the job kept no products of activations; accepted: measures of "
      "counts (count, probability, upstream, phi, jaccard)");
}

PairNumbers Coactivations::Of(int64_t a, int64_t b) const {
  return std::visit([a, b](const auto& pairs) { return pairs.Of(a, b); },
                    pairs_);
}

absl::StatusOr<std::vector<std::vector<Partner>>> Coactivations::Top(
    PairMeasure measure, const std::vector<int64_t>& latents, int64_t m,
    const std::function<absl::Status()>& poll) const {
  RETURN_IF_ERROR(CheckMeasure(measure));
  const auto* exact = std::get_if<Coactivation>(&pairs_);
  if (exact == nullptr) {
    return std::get<PairSample>(pairs_).Top(measure, latents, m, poll);
  }
  std::vector<std::vector<Partner>> top;
  for (int64_t latent : latents) {
    RETURN_IF_ERROR(poll());
    top.push_back(exact->Top(measure, latent, m));
  }
  return top;
}

}  // namespace cupola::analysis
