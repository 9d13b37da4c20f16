// Compares rows that grow token by token (server/model/growing_state.h) with
// full recomputation of the same tokens:
//
//   check_growing MODEL_FOLDER raw|folded
//
// Rows of unequal length, two of which share their prompt, one that starts from
// nothing and one that is removed half way, grow until the longest fills the
// context. Without edits, then with an edit of one hook point after the other
// (x * 1.1 + 0.05 at every position; patterns x * 1.1, since a weight for keys
// behind the query is no causal model's). Prints
// {hook or "": largest difference of the logits, relative to their scale}.

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "server/model/growing_state.h"
#include "server/model/hook_point.h"
#include "server/model/json.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::model {
namespace {

constexpr int64_t kPrompts[] = {9, 20, 9, 0};  // lengths; 0 and 2: one prompt
constexpr int64_t kSteps = 24;
constexpr int64_t kEditedSteps = 4;

std::vector<int32_t> Text(int which, int64_t length, int64_t d_vocab) {
  std::vector<int32_t> text;
  for (int64_t i = 0; i < length; ++i) {
    const int64_t seed = i < kPrompts[which] && which == 2 ? 0 : which;
    text.push_back((37 * i + 11 + 53 * seed) % d_vocab);
  }
  return text;
}

void AddEdit(const HookPoint* point, ForwardRequest* request) {
  if (point == nullptr) return;
  request->edits = {*point};
  request->edit = [](const HookPoint& point, at::Tensor* value) {
    value->mul_(1.1);
    if (point.kind != HookKind::kPattern) value->add_(0.05);
    return absl::OkStatus();
  };
}

absl::StatusOr<at::Tensor> FullLogits(const Model& model,
                                      const std::vector<int32_t>& text,
                                      const HookPoint* point) {
  ForwardRequest request;
  request.batch = TokenBatch::Pack({&text});
  request.logits = true;
  AddEdit(point, &request);
  ASSIGN_OR_RETURN(const ForwardResult result, model.Forward(request));
  return result.logits[0];
}

absl::StatusOr<double> Compare(const Model& model, const HookPoint* point) {
  const ModelConfig& config = model.config();
  const int64_t steps = point == nullptr ? kSteps : kEditedSteps;
  std::vector<std::vector<int32_t>> texts;
  std::vector<at::Tensor> full;
  for (int i = 0; i < 4; ++i) {
    texts.push_back(Text(i, kPrompts[i] + steps, config.d_vocab));
    ASSIGN_OR_RETURN(full.emplace_back(),
                     FullLogits(model, texts.back(), point));
  }
  const std::vector<int32_t> first(texts[0].begin(), texts[0].begin() + 9);
  const std::vector<int32_t> second(texts[1].begin(), texts[1].begin() + 20);
  ForwardRequest prompts;
  prompts.batch = TokenBatch::Pack({&first, &second});
  prompts.captures = {{HookKind::kFinalOut, -1}};
  prompts.keep = {0, {}};
  AddEdit(point, &prompts);
  ASSIGN_OR_RETURN(const ForwardResult kept, model.Forward(prompts));

  GrowingState state(config, model.options().dtype, model.options().device, 4,
                     20 + steps);
  std::vector<int> rows = {0, 1, 2, 3};  // the texts of the state's rows
  state.Add(*kept.kept, 0, 9);
  state.Add(*kept.kept, 1, 20);
  state.Add(*kept.kept, 0, 9);
  state.Add(*kept.kept, 0, 0);
  double worst = 0, scale = 0;
  for (int64_t step = 0; step < steps; ++step) {
    if (step == steps / 2) {
      state.Remove(0);
      rows = {3, 1, 2};
    }
    std::vector<std::vector<int32_t>> next;
    for (size_t i = 0; i < rows.size(); ++i) {
      next.push_back({texts[rows[i]][state.lengths()[i]]});
    }
    std::vector<const std::vector<int32_t>*> packed;
    for (const auto& row : next) packed.push_back(&row);
    ForwardRequest request;
    request.batch = TokenBatch::Pack(packed);
    request.growing = &state;
    request.logits = true;
    AddEdit(point, &request);
    ASSIGN_OR_RETURN(const ForwardResult grown, model.Forward(request));
    for (size_t i = 0; i < rows.size(); ++i) {
      const at::Tensor expected = full[rows[i]][state.lengths()[i] - 1];
      const at::Tensor difference = grown.logits[i][0] - expected;
      worst = std::max(worst, difference.abs().max().item<double>());
      scale = std::max(scale, expected.abs().max().item<double>());
    }
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
  ASSIGN_OR_RETURN(errors[""], Compare(*model, nullptr));
  for (const HookPoint& point : AllHookPoints(model->config())) {
    ASSIGN_OR_RETURN(errors[HookName(point)], Compare(*model, &point));
  }
  std::cout << errors.dump() << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace cupola::model

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: check_growing MODEL_FOLDER raw|folded\n";
    return 2;
  }
  const absl::Status status = cupola::model::Run(argv[1], argv[2]);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}
