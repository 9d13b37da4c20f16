#include "server/analysis/feature_matching.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/assignment.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::analysis {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double ValueAt(const at::Tensor& values, int64_t row, int64_t column) {
  const int64_t i = row * values.size(1) + column;
  return values.scalar_type() == at::kDouble
             ? values.const_data_ptr<double>()[i]
             : double{values.const_data_ptr<float>()[i]};
}

// OK where each is one of `latents`, or -1 if `optional`.
absl::Status CheckMatched(const std::vector<int64_t>& matched, int64_t latents,
                          bool optional) {
  for (size_t i = 0; i < matched.size(); ++i) {
    if (matched[i] >= (optional ? -1 : 0) && matched[i] < latents) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "matched[", i, "] is ", matched[i],
        "; accepted: ", optional ? "-1 (none) or " : "", "0 to ", latents - 1));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AssignedFeatures> AssignFeatures(
    const at::Tensor& cosines, const std::function<absl::Status()>& poll) {
  AssignedFeatures assigned;
  ASSIGN_OR_RETURN(assigned.matched,
                   AssignOneToOne(cosines, Objective::kMaximize, poll));
  for (size_t i = 0; i < assigned.matched.size(); ++i) {
    const int64_t j = assigned.matched[i];
    assigned.cosines.push_back(
        j < 0 ? 0 : ValueAt(cosines, static_cast<int64_t>(i), j));
  }
  return assigned;
}

absl::Status CheckPolicy(DeadPolicy policy, int64_t a, int64_t b) {
  if (policy != DeadPolicy::kUpstream || a == b) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("dead_policy: upstream's needs dictionaries of the same "
                   "number of latents, not ",
                   a, " and ", b, "; accepted: correct"));
}

absl::StatusOr<Matching> MatchingOf(AssignedFeatures assigned,
                                    const std::vector<bool>& dead_a,
                                    const std::vector<bool>& dead_b,
                                    DeadPolicy policy) {
  const int64_t a = static_cast<int64_t>(assigned.matched.size());
  const int64_t b = static_cast<int64_t>(dead_b.size());
  if (assigned.cosines.size() != assigned.matched.size() ||
      dead_a.size() != assigned.matched.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "told of ", a, " assigned, ", assigned.cosines.size(), " cosines and ",
        dead_a.size(), " dead latents; accepted: of as many"));
  }
  RETURN_IF_ERROR(CheckMatched(assigned.matched, b, true));
  RETURN_IF_ERROR(CheckPolicy(policy, a, b));
  const bool upstream = policy == DeadPolicy::kUpstream;
  Matching matching;
  matching.matched = std::move(assigned.matched);
  for (int64_t i = 0; i < a; ++i) {
    const int64_t j = matching.matched[i];
    const bool dead = dead_a[i] || (upstream ? dead_b[i] : j < 0 || dead_b[j]);
    matching.distances.push_back(!dead      ? 1 - assigned.cosines[i]
                                 : upstream ? -1
                                            : kNone);
    matching.counted += upstream || !dead_a[i];
  }
  return matching;
}

std::vector<double> MatchedFractions(const Matching& matching,
                                     const std::vector<double>& thresholds) {
  std::vector<double> fractions;
  for (const double threshold : thresholds) {
    const int64_t below =
        std::count_if(matching.distances.begin(), matching.distances.end(),
                      [threshold](double d) { return d < threshold; });
    fractions.push_back(matching.counted == 0
                            ? 0
                            : static_cast<double>(below) / matching.counted);
  }
  return fractions;
}

std::vector<int64_t> AppearingFeatures(const std::vector<Matching>& matchings,
                                       int64_t at, double threshold) {
  std::vector<int64_t> appearing;
  const size_t latents = matchings.empty() ? 0 : matchings[0].distances.size();
  for (size_t i = 0; i < latents; ++i) {
    bool appears = true;
    for (int64_t c = 0; c < static_cast<int64_t>(matchings.size()); ++c) {
      appears &= (matchings[c].distances[i] < threshold) == (c >= at);
    }
    if (appears) appearing.push_back(static_cast<int64_t>(i));
  }
  return appearing;
}

absl::StatusOr<at::Tensor> DecoderCosines(const at::Tensor& a_decoder,
                                          const at::Tensor& b_decoder,
                                          const std::vector<int64_t>& matched) {
  using Result = absl::StatusOr<at::Tensor>;
  if (a_decoder.dim() != 2 || b_decoder.dim() != 2 ||
      a_decoder.size(1) != b_decoder.size(1) ||
      a_decoder.size(0) != static_cast<int64_t>(matched.size())) {
    return absl::InvalidArgumentError(
        "decoders: accepted: [latents, width] of the same width, with as many "
        "matches as the first has latents");
  }
  RETURN_IF_ERROR(CheckMatched(matched, b_decoder.size(0), true));
  return model::CatchTorch("comparing decoders", [&]() -> Result {
    const at::Tensor index =
        at::tensor(matched, at::kLong).to(a_decoder.device());
    const at::Tensor a = a_decoder.to(at::kFloat);
    const at::Tensor b =
        b_decoder.to(at::kFloat).index_select(0, index.clamp_min(0));
    const at::Tensor norms = a.norm(2, 1) * b.norm(2, 1);
    const at::Tensor cosines = (a * b).sum(1) / norms;
    return cosines.masked_fill(index.lt(0).logical_or(norms.eq(0)), kNone)
        .cpu();
  });
}

absl::StatusOr<at::Tensor> InOrderOf(const std::vector<int64_t>& matched,
                                     const at::Tensor& tensor, int64_t axis) {
  using Result = absl::StatusOr<at::Tensor>;
  if (axis < 0 || axis >= tensor.dim()) {
    return absl::InvalidArgumentError(
        absl::StrCat("axis is ", axis, "; accepted: 0 to ", tensor.dim() - 1));
  }
  RETURN_IF_ERROR(CheckMatched(matched, tensor.size(axis), false));
  return model::CatchTorch("permuting a dictionary", [&]() -> Result {
    return tensor.index_select(
        axis, at::tensor(matched, at::kLong).to(tensor.device()));
  });
}

}  // namespace cupola::analysis
