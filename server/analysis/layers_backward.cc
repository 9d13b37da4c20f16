#include "server/analysis/layers_backward.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "server/model/status_macros.h"
#include "server/model/weights.h"

namespace cupola::analysis {
namespace {

using model::BackwardSpan;
using model::HookKind;

// The positions that a lane's cotangents may stand at on their way.
struct Way {
  std::vector<int64_t> window;   // the first source to the output
  std::vector<int64_t> sources;  // ascending, none behind the output
};

Way WayOf(const BackwardLane& lane) {
  Way way;
  if (lane.own) return way;
  const int64_t output = lane.cotangents.positions.back();
  for (int64_t source : lane.sources) {
    if (source <= output) way.sources.push_back(source);
  }
  std::sort(way.sources.begin(), way.sources.end());
  way.sources.erase(std::unique(way.sources.begin(), way.sources.end()),
                    way.sources.end());
  if (way.sources.empty()) return way;
  way.window.resize(output + 1 - way.sources.front());
  std::iota(way.window.begin(), way.window.end(), way.sources.front());
  return way;
}

}  // namespace

int64_t BackwardValuesPerRow(const model::ModelConfig& config,
                             const BackwardLane& lane) {
  const int64_t positions =
      lane.own ? static_cast<int64_t>(lane.cotangents.positions.size())
               : std::max<int64_t>(
                     1, static_cast<int64_t>(WayOf(lane).window.size()));
  const int64_t mlp = config.d_mlp * (config.gated_mlp ? 3 : 2);
  const int64_t heads =
      (2 * config.n_heads + 2 * config.n_kv_heads) * config.d_head;
  return positions * (2 * config.d_model + std::max(mlp, heads));
}

int64_t BackwardBytes(const model::ModelConfig& config,
                      const BackwardSpan& span, int64_t tokens) {
  const int layers = span.from.layer - span.to.layer + 1;
  return model::BlockMatrices::Bytes(config) +
         tokens * model::CheckpointedPass::BytesPerToken(config, layers);
}

absl::Status GoBack(const model::Model& model, const BackwardSpan& span,
                    const model::CheckpointedPass& pass,
                    const std::function<absl::Status()>& poll,
                    std::vector<BackwardLane>* lanes) {
  std::vector<Way> ways;
  for (const BackwardLane& lane : *lanes) ways.push_back(WayOf(lane));
  // Before the attention of its layer the last point is reached by positions
  // that are no sources; behind it they are of no use.
  const bool behind_attention = span.to.kind >= HookKind::kZ;
  for (int layer = span.from.layer; layer >= span.to.layer; --layer) {
    const bool last = layer == span.to.layer;
    ASSIGN_OR_RETURN(
        const auto inside,
        pass.Inside(layer, model::BlockCaptures(span, layer, model.config())));
    const auto matrices =
        model::BlockMatrices::Of(model.weights().blocks[layer]);
    const model::BlockVjp block(model.config(), model.weights(), span, layer,
                                matrices, inside);
    for (size_t i = 0; i < lanes->size(); ++i) {
      BackwardLane& lane = (*lanes)[i];
      const Way& way = ways[i];
      if (!lane.own && way.sources.empty()) continue;
      RETURN_IF_ERROR(poll());
      if (last && behind_attention && !lane.own) {
        lane.cotangents = lane.cotangents.At(way.sources);
      }
      lane.cotangents = block.Run(lane.row, lane.cotangents,
                                  last ? way.sources : way.window, lane.own);
    }
  }
  for (size_t i = 0; i < lanes->size(); ++i) {
    BackwardLane& lane = (*lanes)[i];
    model::Cotangents& found = lane.cotangents;
    if (!lane.own && ways[i].sources.empty()) found.values.reset();
    if (!lane.own) found = found.At(lane.sources);
  }
  return absl::OkStatus();
}

}  // namespace cupola::analysis
