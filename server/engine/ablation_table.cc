#include "server/engine/ablation_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/direction_statistics.h"
#include "server/engine/prompt_resolution.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using storage::DType;

template <typename T>
std::vector<T> Values(const Array& array) {
  std::vector<T> values(array.bytes.size() / sizeof(T));
  std::memcpy(values.data(), array.bytes.data(), array.bytes.size());
  return values;
}

template <typename T>
Array ToColumn(const std::vector<T>& values, DType dtype) {
  Array array{dtype, {static_cast<int64_t>(values.size())}, {}};
  array.bytes.assign(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(T));
  return array;
}

// What a latent does over the prompts.
struct Statistics {
  float largest = 0;                              // but on last tokens
  std::vector<std::pair<int32_t, float>> active;  // (prompt, a), by prompt
};

absl::StatusOr<std::map<uint32_t, Statistics>> Gather(
    const AblationTableRequest& request, const FeaturesAnswer& features) {
  const auto& token_ids = features.provenance.token_ids;
  Positions positions = request.positions;
  if (positions.kind == Positions::Kind::kAll) {
    positions.kind = Positions::Kind::kEveryPrompt;
    positions.lists = {{-2}};
  }
  ASSIGN_OR_RETURN(const auto where, ResolvePositions(positions, token_ids));
  for (size_t i = 0; i < where.size(); ++i) {
    if (where[i].size() != 1 ||
        where[i][0] + 1 == static_cast<int64_t>(token_ids[i].size())) {
      return InvalidArgumentError(StrCat(
          "position: for prompt ", i, " one that a token follows is accepted"));
    }
  }
  const auto indptr = Values<int64_t>(features.features.indptr);
  const auto indices = Values<uint32_t>(features.features.indices);
  const auto values = Values<float>(features.features.values);
  std::map<uint32_t, Statistics> found;
  size_t row = 0;
  for (size_t prompt = 0; prompt < token_ids.size(); ++prompt) {
    const int64_t last = static_cast<int64_t>(token_ids[prompt].size()) - 1;
    for (int64_t position = 0; position <= last; ++position, ++row) {
      if (position == last) continue;
      for (int64_t k = indptr[row]; k < indptr[row + 1]; ++k) {
        Statistics& mine = found[indices[k]];
        mine.largest = std::max(mine.largest, values[k]);
        if (position == where[prompt][0]) {
          mine.active.emplace_back(static_cast<int32_t>(prompt), values[k]);
        }
      }
    }
  }
  return found;
}

// Mean and share of one latent; a mean of 0 leaves it out.
AblationPlan::Latent Judge(const AblationTableRequest& request, uint32_t latent,
                           const Statistics& statistics, int64_t prompts) {
  std::vector<float> counted;
  for (const auto& [prompt, activation] : statistics.active) {
    if (prompt < request.mean_prompts) counted.push_back(activation);
  }
  const analysis::DirectionShare share = analysis::ShareOf(
      counted, statistics.largest, request.share_of_max, request.min_share,
      std::min(prompts, request.mean_prompts));
  return {latent, share.mean, share.share, 0};
}

}  // namespace

absl::Status CheckAblationTable(const AblationTableRequest& request) {
  for (const auto& [name, value] :
       {std::pair("active_above", request.active_above),
        std::pair("share_of_max", request.share_of_max),
        std::pair("min_share", request.min_share)}) {
    if (!std::isfinite(value) || value < 0) {
      return InvalidArgumentError(
          StrCat(name, " is ", value, "; accepted: a finite number >= 0"));
    }
  }
  for (const auto& [name, value] :
       {std::pair("mean_prompts", request.mean_prompts),
        std::pair("max_latents", request.max_latents),
        std::pair("prompts_per_latent", request.prompts_per_latent)}) {
    if (value < 1) {
      return InvalidArgumentError(
          StrCat(name, " is ", value, "; accepted: at least 1"));
    }
  }
  if (!request.ablate_with_bos.has_value()) return absl::OkStatus();
  for (size_t i = 0; i < request.prompts.prompts.size(); ++i) {
    if (request.prompts.prompts[i].is_text) continue;
    return InvalidArgumentError(
        StrCat("ablate_with_bos: prompt ", i,
               " is given as token ids; accepted: texts alone"));
  }
  for (const auto& list : request.positions.lists) {
    for (int64_t position : list) {
      if (position < 0) continue;
      return InvalidArgumentError(StrCat(
          "position: ", position,
          " would be another token with ablate_with_bos; accepted: positions "
          "that count from the end"));
    }
  }
  return absl::OkStatus();
}

FeaturesRequest FeaturesFor(const AblationTableRequest& request) {
  FeaturesRequest features;
  features.dictionary = request.dictionary;
  features.prompts = request.prompts;
  features.processing = request.processing;
  return features;
}

AblateRequest AblateAllOf(const AblationTableRequest& request) {
  AblateRequest ablate;
  ablate.dictionary = request.dictionary;
  ablate.prompts = request.prompts;
  ablate.processing = request.processing;
  ablate.positions = request.positions;
  return ablate;
}

absl::StatusOr<AblationPlan> PlanAblations(const AblationTableRequest& request,
                                           const FeaturesAnswer& features) {
  ASSIGN_OR_RETURN(const auto statistics, Gather(request, features));
  const auto& token_ids = features.provenance.token_ids;
  AblationPlan plan;
  for (const auto& [latent, mine] : statistics) {
    const AblationPlan::Latent judged =
        Judge(request, latent, mine, static_cast<int64_t>(token_ids.size()));
    if (judged.mean > 0) plan.latents.push_back(judged);
  }
  std::stable_sort(
      plan.latents.begin(), plan.latents.end(),
      [](const auto& a, const auto& b) { return a.mean > b.mean; });
  if (static_cast<int64_t>(plan.latents.size()) > request.max_latents) {
    plan.latents.resize(request.max_latents);
  }
  std::map<int32_t, std::vector<uint32_t>> of_prompt;
  for (AblationPlan::Latent& latent : plan.latents) {
    for (const auto& [prompt, activation] :
         statistics.at(latent.latent).active) {
      if (latent.prompts == request.prompts_per_latent) break;
      if (activation <= request.active_above) continue;
      of_prompt[prompt].push_back(latent.latent);
      ++latent.prompts;
    }
  }
  plan.ablate.dictionary = request.dictionary;
  plan.ablate.processing = request.processing;
  plan.ablate.prompts.prepend_bos = request.ablate_with_bos;
  plan.ablate.positions = {Positions::Kind::kPerPrompt, {}};
  for (auto& [prompt, latents] : of_prompt) {
    plan.ablate.prompts.prompts.push_back(
        request.ablate_with_bos.has_value()
            ? request.prompts.prompts[prompt]
            : Prompt{false, "", token_ids[prompt]});
    plan.ablate.positions.lists.push_back(
        request.positions.kind == Positions::Kind::kAll
            ? std::vector<int64_t>{-2}
            : request.positions
                  .lists[request.positions.kind == Positions::Kind::kPerPrompt
                             ? prompt
                             : 0]);
    plan.ablate.prompt_latents.push_back(std::move(latents));
  }
  return plan;
}

AblationTableAnswer Tabulate(const AblationPlan& plan,
                             const FeaturesAnswer& features,
                             const std::optional<AblateAnswer>& subtracted,
                             const std::optional<AblateAnswer>& reconstructed) {
  AblationTableAnswer answer;
  answer.provenance = features.provenance;
  // By latent: the sums of the loss increases in both modes.
  std::map<uint32_t, std::pair<double, double>> sums;
  const auto add = [&](const std::optional<AblateAnswer>& ablated,
                       double std::pair<double, double>::*sum) {
    if (!ablated.has_value()) return;
    const auto places = Values<int32_t>(ablated->place);
    const auto latents = Values<uint32_t>(ablated->latent);
    const auto loss = Values<float>(ablated->loss);
    const auto base = Values<float>(ablated->base_loss);
    const int64_t bases = ablated->base_loss.shape[1];
    for (size_t i = 0; i < latents.size(); ++i) {
      sums[latents[i]].*sum += loss[i] - base[places[i] * bases];
    }
    answer.provenance.from_cache &= ablated->provenance.from_cache;
    answer.provenance.seconds.queue += ablated->provenance.seconds.queue;
    answer.provenance.seconds.compute += ablated->provenance.seconds.compute;
  };
  add(subtracted, &std::pair<double, double>::first);
  add(reconstructed, &std::pair<double, double>::second);

  std::vector<AblationPlan::Latent> rows;
  for (const AblationPlan::Latent& latent : plan.latents) {
    if (latent.prompts > 0) rows.push_back(latent);
  }
  const auto mean = [&](const AblationPlan::Latent& latent,
                        double std::pair<double, double>::*sum) {
    return static_cast<float>(sums[latent.latent].*sum / latent.prompts);
  };
  constexpr auto kSubtracted = &std::pair<double, double>::first;
  constexpr auto kEncoded = &std::pair<double, double>::second;
  std::stable_sort(rows.begin(), rows.end(), [&](const auto& a, const auto& b) {
    return mean(a, kSubtracted) > mean(b, kSubtracted);
  });
  std::vector<uint32_t> latents;
  std::vector<float> increase, encoded, means, shares;
  std::vector<int32_t> counts;
  for (const AblationPlan::Latent& row : rows) {
    latents.push_back(row.latent);
    increase.push_back(mean(row, kSubtracted));
    encoded.push_back(mean(row, kEncoded));
    means.push_back(static_cast<float>(row.mean));
    shares.push_back(static_cast<float>(row.share));
    counts.push_back(row.prompts);
  }
  answer.latent = ToColumn(latents, DType::kUInt32);
  answer.loss_increase = ToColumn(increase, DType::kFloat32);
  answer.loss_increase_encoded = ToColumn(encoded, DType::kFloat32);
  answer.mean_activation = ToColumn(means, DType::kFloat32);
  answer.share_active = ToColumn(shares, DType::kFloat32);
  answer.prompts = ToColumn(counts, DType::kInt32);
  return answer;
}

}  // namespace cupola::engine
