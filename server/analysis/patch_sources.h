#ifndef CUPOLA_SERVER_ANALYSIS_PATCH_SOURCES_H_
#define CUPOLA_SERVER_ANALYSIS_PATCH_SOURCES_H_

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/statusor.h"
#include "server/analysis/analysis.h"
#include "server/analysis/intervention.h"

namespace cupola::analysis {

// What patches take from other prompts. Prompts often share a source, so each
// is run once per hook point. Not thread-safe; `pass` outlives this.
class PatchSources {
 public:
  explicit PatchSources(const Pass& pass) : pass_(pass) {}

  // The values at the patch's source positions: [positions, ...HookShape].
  absl::StatusOr<at::Tensor> Of(const PlacedIntervention& placed);

  // Drops the sources that were run so far.
  void Clear() { sources_.clear(); }

 private:
  const Pass& pass_;
  std::map<std::pair<model::HookPoint, std::vector<int32_t>>, at::Tensor>
      sources_;
};

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_PATCH_SOURCES_H_
