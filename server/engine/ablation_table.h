#ifndef CUPOLA_SERVER_ENGINE_ABLATION_TABLE_H_
#define CUPOLA_SERVER_ENGINE_ABLATION_TABLE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/requests.h"
#include "server/engine/run_requests.h"

namespace cupola::engine {

// Which latents matter at one position of a set of prompts: the table of a
// public study of quotation marks in a small model, with all of its thresholds.
//
// Over the prompts (of which the first `mean_prompts` count for a latent's mean
// and share), a being a latent's activation at the position:
//   threshold  share_of_max * the latent's largest activation on any token but
//              a prompt's last
//   n          how many a exceed the threshold, plus 1e-9
//   mean       sum of those a / n; a latent with n below min_share of the
//              prompts is left out
// The max_latents latents of the largest means are ablated in the first
// prompts_per_latent prompts where a > active_above.
struct AblationTableRequest {
  std::string dictionary;
  Prompts prompts;
  Positions positions;  // one per prompt; kAll: the last but one
  std::optional<model::Processing> processing;
  double active_above = 0.1, share_of_max = 0.17, min_share = 0.05;
  int64_t mean_prompts = 1000, max_latents = 100, prompts_per_latent = 200;
  // Whether BOS comes before the ablated texts; unset: as before all others.
  std::optional<bool> ablate_with_bos;
};

// A row per latent, by falling loss increase.
struct AblationTableAnswer {
  Array latent;  // UINT32 [rows]
  // FLOAT32 [rows]: mean over the ablated prompts of the loss without the
  // latent's contribution, and of the loss under the reconstruction without the
  // latent, both over the clean loss.
  Array loss_increase, loss_increase_encoded;
  Array mean_activation, share_active;  // FLOAT32 [rows]: mean, n / prompts
  Array prompts;                        // INT32 [rows]: how many were ablated
  Provenance provenance;
};

// The ablations of all active latents of all prompts, in the table's place.
AblateRequest AblateAllOf(const AblationTableRequest& request);

// What the features of the prompts decide.
struct AblationPlan {
  struct Latent {
    uint32_t latent = 0;
    double mean = 0, share = 0;
    int32_t prompts = 0;
  };
  std::vector<Latent> latents;
  // What to ablate; without prompts where nothing is active.
  AblateRequest ablate;
};

// INVALID_ARGUMENT: thresholds that are not numbers >= 0, counts below 1; a BOS
// of their own for ablated prompts that are ids, or whose positions would move.
absl::Status CheckAblationTable(const AblationTableRequest& request);

// The features every part of the plan needs: of all positions.
FeaturesRequest FeaturesFor(const AblationTableRequest& request);

// Pure. INVALID_ARGUMENT: a position that a prompt lacks, or its last.
absl::StatusOr<AblationPlan> PlanAblations(const AblationTableRequest& request,
                                           const FeaturesAnswer& features);

// The table from the plan's ablations in both modes (nothing of both where the
// plan has none).
AblationTableAnswer Tabulate(const AblationPlan& plan,
                             const FeaturesAnswer& features,
                             const std::optional<AblateAnswer>& subtracted,
                             const std::optional<AblateAnswer>& reconstructed);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ABLATION_TABLE_H_
