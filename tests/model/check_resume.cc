// Compares passes that continue kept rows (server/model/kept_state.h) with full
// recomputation:
//
//   check_resume MODEL_FOLDER raw|folded
//
// For every hook point but attention's square ones: several copies of two
// prompts of unequal length, each changed at that point from a position of its
// own on (x * 1.1 + 0.05), in one continuing pass from the point's layer, and
// each alone in a full pass. Prints {hook: largest difference of the logits,
// relative to their scale}.

#include <algorithm>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/model/hook_point.h"
#include "server/model/json.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::model {
namespace {

struct Copy {
  int64_t prompt, first;
};
// Neither sorted by prompt nor evenly cut.
constexpr Copy kCopies[] = {{0, 3}, {0, 20}, {0, 0}, {0, 3}, {1, 12},
                            {1, 1}, {0, 9},  {1, 0}, {1, 7}};

std::vector<std::vector<int32_t>> Prompts(int64_t d_vocab) {
  std::vector<std::vector<int32_t>> prompts(2);
  for (int i = 0; i < 21; ++i) prompts[0].push_back((37 * i + 11) % d_vocab);
  for (int i = 0; i < 13; ++i) prompts[1].push_back((53 * i + 5) % d_vocab);
  return prompts;
}

void Change(at::Tensor value) { value.mul_(1.1).add_(0.05); }

// Logits of the prompt changed at `point` from `first` on: [positions, d_vocab]
absl::StatusOr<at::Tensor> Full(const Model& model, const HookPoint& point,
                                const std::vector<int32_t>& prompt,
                                int64_t first) {
  ForwardRequest request;
  request.batch = TokenBatch::Pack({&prompt});
  request.logits = true;
  request.edits = {point};
  request.edit = [&](const HookPoint&, at::Tensor* value) {
    Change(value->narrow(1, first, value->size(1) - first));
    return absl::OkStatus();
  };
  ASSIGN_OR_RETURN(const ForwardResult result, model.Forward(request));
  return result.logits[0].narrow(0, first, prompt.size() - first);
}

absl::StatusOr<double> Compare(const Model& model, const HookPoint& point) {
  const ModelConfig& config = model.config();
  const auto prompts = Prompts(config.d_vocab);
  // The layer whose entry comes before the point.
  int layer = point.layer;
  if (layer < 0) layer = point.kind < HookKind::kResidPre ? 0 : config.n_layers;
  const bool embeds = layer == 0 && point.layer < 0;

  ForwardRequest clean;
  clean.batch = TokenBatch::Pack({&prompts[0], &prompts[1]});
  clean.captures = {{HookKind::kFinalOut, -1}};
  clean.keep = {layer, {layer}};
  ASSIGN_OR_RETURN(const ForwardResult kept, model.Forward(clean));

  std::vector<std::vector<int32_t>> tails;
  std::vector<at::Tensor> residuals;
  ForwardRequest request;
  request.continuation.kept = kept.kept;
  for (const Copy& copy : kCopies) {
    const std::vector<int32_t>& prompt = prompts[copy.prompt];
    tails.emplace_back(prompt.begin() + copy.first, prompt.end());
    request.continuation.kept_rows.push_back(copy.prompt);
    request.continuation.first.push_back(copy.first);
  }
  std::vector<const std::vector<int32_t>*> rows;
  for (const auto& tail : tails) rows.push_back(&tail);
  request.batch = TokenBatch::Pack(rows);
  request.start_layer = layer;
  if (!embeds) {
    const at::Tensor& all = kept.kept->residuals.at(layer);
    request.start_residual =
        at::zeros({static_cast<int64_t>(rows.size()),
                   request.batch.tokens.size(1), config.d_model},
                  all.options());
    for (size_t i = 0; i < rows.size(); ++i) {
      const int64_t n = tails[i].size();
      request.start_residual[i].narrow(0, 0, n).copy_(
          all[kCopies[i].prompt].narrow(0, kCopies[i].first, n));
    }
  }
  request.logits = true;
  request.edits = {point};
  request.edit = [](const HookPoint&, at::Tensor* value) {
    Change(*value);
    return absl::OkStatus();
  };
  ASSIGN_OR_RETURN(const ForwardResult resumed, model.Forward(request));
  double worst = 0, scale = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSIGN_OR_RETURN(
        const at::Tensor full,
        Full(model, point, prompts[kCopies[i].prompt], kCopies[i].first));
    const at::Tensor difference =
        resumed.logits[i].narrow(0, 0, full.size(0)) - full;
    worst = std::max(worst, difference.abs().max().item<double>());
    scale = std::max(scale, full.abs().max().item<double>());
  }
  return worst / scale;
}

absl::Status Run(const std::string& folder, const std::string& processing) {
  ASSIGN_OR_RETURN(const auto source, ModelSource::Open(folder));
  Model::Options options;
  options.processing =
      processing == "folded" ? Processing::kFolded : Processing::kRaw;
  ASSIGN_OR_RETURN(const auto model, Model::Load(source, options));
  Json errors = Json::object();
  for (const HookPoint& point : AllHookPoints(model->config())) {
    if (point.kind == HookKind::kAttnScores ||
        point.kind == HookKind::kPattern) {
      continue;
    }
    ASSIGN_OR_RETURN(errors[HookName(point)], Compare(*model, point));
  }
  std::cout << errors.dump() << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace cupola::model

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: check_resume MODEL_FOLDER raw|folded\n";
    return 2;
  }
  const absl::Status status = cupola::model::Run(argv[1], argv[2]);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}
