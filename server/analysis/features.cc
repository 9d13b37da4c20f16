#include "server/analysis/features.h"

#include <utility>

#include "ATen/ATen.h"
#include "server/analysis/latent_records.h"
#include "server/analysis/rows.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {

FeaturesAnalysis::FeaturesAnalysis(
    std::shared_ptr<const dictionary::Dictionary> dictionary,
    model::HookPoint hook, dictionary::EncodeOptions options)
    : dictionary_(std::move(dictionary)),
      hook_(hook),
      options_(std::move(options)) {}

storage::Digest FeaturesAnalysis::Identity(
    const storage::Digest& dictionary, dictionary::Half half,
    const dictionary::EncodeOptions& options) {
  return storage::Hasher("features/1")
      .AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .AddInts(options.latents.data(), options.latents.size())
      .AddInt(options.top_k)
      .AddDouble(options.min_activation)
      .Finish();
}

absl::StatusOr<std::vector<std::vector<storage::Array>>> FeaturesAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  ASSIGN_OR_RETURN(at::Tensor x, GatherRows(pass, hook_, sequences));
  std::vector<int64_t> rows;
  for (const Placed& placed : sequences) {
    rows.push_back(RowCount(*placed.sequence));
  }
  LatentRecords builder(rows);
  RETURN_IF_ERROR(builder.Encode(*dictionary_, x, options_, pass.poll));
  return builder.Finish();
}

}  // namespace cupola::analysis
