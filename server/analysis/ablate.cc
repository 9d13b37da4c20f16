#include "server/analysis/ablate.h"

#include <algorithm>
#include <utility>

#include "server/analysis/changed_passes.h"
#include "server/analysis/edits.h"
#include "server/analysis/intervention.h"
#include "server/analysis/readout.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using dictionary::Dictionary;
using dictionary::SparseRows;
using model::HookKind;
using model::HookPoint;
using storage::Array;
using storage::DType;

constexpr HookPoint kFinal{HookKind::kFinalOut, -1};
// Ablations whose changed activations exist at a time.
constexpr int64_t kChunkAblations = 8192;

// Where a change of `point` is made: what leaves a block enters the next, and
// starting there spares a block.
HookPoint ChangePoint(const HookPoint& point,
                      const model::ModelConfig& config) {
  if (point.kind == HookKind::kResidPost && point.layer + 1 < config.n_layers) {
    return {HookKind::kResidPre, point.layer + 1};
  }
  return point;
}

// One latent of one prompt; latent -1: the full reconstruction.
struct Ablation {
  int64_t prompt = 0;
  int32_t latent = -1;
  float activation = 0;
};

// One group of prompts, small enough for their clean state to be kept.
class Ablater {
 public:
  Ablater(const Dictionary& dictionary, const HookPoint& hook_in,
          const HookPoint& hook_out, const AblateOptions& options,
          const Pass& pass, const std::vector<Placed>& sequences)
      : dictionary_(dictionary),
        hook_in_(hook_in),
        hook_out_(hook_out),
        options_(options),
        pass_(pass),
        sequences_(sequences),
        width_(1 + options.answers) {
    addition_.change = Change::kAdd;
    addition_.hook = ChangePoint(hook_out, pass.model->config());
  }

  absl::StatusOr<std::vector<std::vector<Array>>> Run() {
    std::vector<const std::vector<int32_t>*> prompts;
    for (const Placed& placed : sequences_) {
      prompts.push_back(&placed.sequence->tokens);
    }
    ChangedPasses passes(*pass_.model, no_dictionaries_, prompts,
                         {hook_in_, hook_out_, kFinal}, pass_.poll);
    RETURN_IF_ERROR(RunClean(passes));
    const int64_t count = static_cast<int64_t>(ablations_.size());
    changed_ = {at::empty({count, width_}, at::kFloat),
                at::empty({count, width_}, at::kInt),
                {},
                {}};
    for (int64_t begin = 0; begin < count; begin += kChunkAblations) {
      RETURN_IF_ERROR(
          RunSome(passes, begin, std::min(kChunkAblations, count - begin)));
    }
    return Records();
  }

 private:
  // The clean output, the activations, and from them what there is to ablate.
  absl::Status RunClean(ChangedPasses& passes) {
    const std::vector<ChangedCopy> any = {
        {0, {{&addition_, {sequences_[0].sequence->positions[0]}, {}}}, 0}};
    ASSIGN_OR_RETURN(const model::ForwardResult forward, passes.RunClean(any));
    const auto rows = [&](const HookPoint& point) {
      const at::Tensor& value = forward.captures.at(point);
      std::vector<int64_t> index;
      for (size_t i = 0; i < sequences_.size(); ++i) {
        index.push_back(static_cast<int64_t>(i) * value.size(1) +
                        sequences_[i].sequence->positions[0]);
      }
      return value.flatten(0, 1).flatten(1).index_select(
          0, at::tensor(index, at::kLong).to(value.device()));
    };
    std::vector<int64_t> answers;
    for (const Placed& placed : sequences_) {
      const Sequence& sequence = *placed.sequence;
      const size_t next = sequence.positions[0] + 1;
      answers.push_back(next < sequence.tokens.size() ? sequence.tokens[next]
                                                      : -1);
      answers.insert(answers.end(), sequence.lists[0].begin(),
                     sequence.lists[0].end());
    }
    answers_ = at::tensor(answers, at::kLong).view({-1, width_});
    ASSIGN_OR_RETURN(clean_, ReadRows(*pass_.model, rows(kFinal), {answers_, 0},
                                      pass_.poll));
    x_ = rows(hook_in_).to(at::kFloat);
    return FindAblations(rows(hook_out_).to(at::kFloat));
  }

  // y: float32 [prompts, d_out], the clean values at the output point.
  absl::Status FindAblations(const at::Tensor& y) {
    ASSIGN_OR_RETURN(const SparseRows active, dictionary_.Encode(x_, {}));
    if (options_.mode == AblateMode::kReconstruct) {
      ASSIGN_OR_RETURN(const at::Tensor full, dictionary_.Decode(active, x_));
      from_error_ = full - y;
    }
    const int64_t* indptr = active.indptr.const_data_ptr<int64_t>();
    const int32_t* latents = active.indices.const_data_ptr<int32_t>();
    const float* values = active.values.const_data_ptr<float>();
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const int64_t prompt = static_cast<int64_t>(i);
      begin_.push_back(static_cast<int64_t>(ablations_.size()));
      if (from_error_.defined()) ablations_.push_back({prompt, -1, 0});
      const std::vector<int64_t>& asked = sequences_[i].sequence->lists[1];
      for (int64_t k = indptr[i]; k < indptr[i + 1]; ++k) {
        if (values[k] != 0 &&
            (asked.empty() ||
             std::binary_search(asked.begin(), asked.end(), latents[k]))) {
          ablations_.push_back({prompt, latents[k], values[k]});
        }
      }
    }
    begin_.push_back(static_cast<int64_t>(ablations_.size()));
    return absl::OkStatus();
  }

  // What is added at the output point: float32 [count, d_out].
  at::Tensor Differences(int64_t begin, int64_t count) const {
    std::vector<int64_t> indptr = {0}, prompts;
    std::vector<int32_t> latents;
    std::vector<float> values;
    for (int64_t i = begin; i < begin + count; ++i) {
      const Ablation& ablation = ablations_[i];
      prompts.push_back(ablation.prompt);
      if (ablation.latent >= 0) {
        latents.push_back(ablation.latent);
        values.push_back(-ablation.activation);
      }
      indptr.push_back(static_cast<int64_t>(latents.size()));
    }
    const SparseRows rows{at::tensor(indptr, at::kLong),
                          at::tensor(latents, at::kInt),
                          at::tensor(values, at::kFloat), dictionary_.d_sae()};
    const at::Tensor index = at::tensor(prompts, at::kLong).to(x_.device());
    at::Tensor difference =
        Contribution(dictionary_, rows, x_.index_select(0, index));
    if (from_error_.defined()) {
      difference = difference + from_error_.index_select(0, index);
    }
    return difference;
  }

  absl::Status RunSome(ChangedPasses& passes, int64_t begin, int64_t count) {
    std::vector<int64_t> shape = {count};
    for (int64_t size : model::HookShape(hook_out_, pass_.model->config())) {
      shape.push_back(size);
    }
    const at::Tensor differences = Differences(begin, count).view(shape);
    std::vector<ChangedCopy> copies;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t prompt = ablations_[begin + i].prompt;
      const int64_t position = sequences_[prompt].sequence->positions[0];
      copies.push_back({prompt,
                        {{&addition_, {position}, differences.narrow(0, i, 1)}},
                        position});
    }
    return passes.RunCopies(copies, [&](const ChangedBatch& batch) {
      return ReadBatch(batch, begin);
    });
  }

  absl::Status ReadBatch(const ChangedBatch& batch, int64_t begin) {
    std::vector<int64_t> where, prompts;
    for (size_t copy : batch.copies) {
      where.push_back(begin + static_cast<int64_t>(copy));
      prompts.push_back(ablations_[where.back()].prompt);
    }
    const at::Tensor rows = batch.forward.captures.at(kFinal).select(1, 0);
    ASSIGN_OR_RETURN(
        const Readout readout,
        ReadRows(*pass_.model, rows,
                 {answers_.index_select(0, at::tensor(prompts, at::kLong)), 0},
                 pass_.poll));
    const at::Tensor index = at::tensor(where, at::kLong);
    changed_.logprob.index_copy_(0, index, readout.logprob);
    changed_.rank.index_copy_(0, index, readout.rank);
    return absl::OkStatus();
  }

  std::vector<std::vector<Array>> Records() const {
    std::vector<std::vector<Array>> records;
    const int64_t bases = from_error_.defined() ? 2 : 1;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      // The prompt's rows: clean, perhaps the reconstruction, the latents.
      const int64_t rows = begin_[i + 1] - begin_[i];
      const auto of_prompt = [&](const at::Tensor& clean,
                                 const at::Tensor& changed) {
        return at::cat(
            {clean.narrow(0, i, 1), changed.narrow(0, begin_[i], rows)});
      };
      const at::Tensor logprob = of_prompt(clean_.logprob, changed_.logprob);
      const at::Tensor rank = of_prompt(clean_.rank, changed_.rank);
      std::vector<int32_t> latents;
      std::vector<float> activations;
      std::vector<int64_t> pick;
      PickLatents(i, bases, &latents, &activations, &pick);
      const at::Tensor picked = at::tensor(pick, at::kLong);
      const at::Tensor base = at::arange(bases, at::kLong);
      std::vector<Array>& record = records.emplace_back();
      record.push_back(ToArray(at::tensor(latents, at::kInt), DType::kUInt32));
      record.push_back(
          ToArray(at::tensor(activations, at::kFloat), DType::kFloat32));
      for (const at::Tensor& index : {picked, base}) {
        AddReadout(logprob.index_select(0, index), rank.index_select(0, index),
                   &record);
      }
    }
    return records;
  }

  // The prompt's latents, and for each its row among the prompt's; one that is
  // not active has the row of the base it equals.
  void PickLatents(size_t prompt, int64_t bases, std::vector<int32_t>* latents,
                   std::vector<float>* activations,
                   std::vector<int64_t>* pick) const {
    int64_t next = begin_[prompt] + bases - 1;
    const auto add = [&](int32_t latent) {
      latents->push_back(latent);
      if (next < begin_[prompt + 1] && ablations_[next].latent == latent) {
        activations->push_back(ablations_[next].activation);
        pick->push_back(1 + next++ - begin_[prompt]);
      } else {
        activations->push_back(0);
        pick->push_back(bases - 1);
      }
    };
    const auto& asked = sequences_[prompt].sequence->lists[1];
    for (int64_t latent : asked) add(static_cast<int32_t>(latent));
    if (!asked.empty()) return;
    while (next < begin_[prompt + 1]) add(ablations_[next].latent);
  }

  void AddReadout(const at::Tensor& logprob, const at::Tensor& rank,
                  std::vector<Array>* record) const {
    const int64_t skip = options_.answers > 0 ? 1 : 0;
    record->push_back(ToArray(logprob.select(1, 0).neg(), DType::kFloat32));
    record->push_back(
        ToArray(logprob.narrow(1, skip, width_ - skip), DType::kFloat32));
    record->push_back(
        ToArray(rank.narrow(1, skip, width_ - skip), DType::kInt32));
  }

  const Dictionary& dictionary_;
  const HookPoint hook_in_, hook_out_;
  const AblateOptions& options_;
  const Pass& pass_;
  const std::vector<Placed>& sequences_;
  const int64_t width_;    // the next token and the answers
  Intervention addition_;  // what every copy is
  const Dictionaries no_dictionaries_;
  at::Tensor answers_;     // int64 [prompts, width]
  at::Tensor x_;           // float32 [prompts, d_in]
  at::Tensor from_error_;  // float32 [prompts, d_out], or undefined
  std::vector<Ablation> ablations_;
  std::vector<int64_t>
      begin_;                // of each prompt among the ablations, and the end
  Readout clean_, changed_;  // [prompts, width], [ablations, width]
};

}  // namespace

AblateAnalysis::AblateAnalysis(std::shared_ptr<const Dictionary> dictionary,
                               HookPoint hook_in, HookPoint hook_out,
                               AblateOptions options)
    : dictionary_(std::move(dictionary)),
      hook_in_(hook_in),
      hook_out_(hook_out),
      options_(options) {}

storage::Digest AblateAnalysis::Identity(const storage::Digest& dictionary,
                                         dictionary::Half half,
                                         const AblateOptions& options) {
  return storage::Hasher("ablate/1")
      .AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .AddInt(static_cast<int64_t>(options.mode))
      .AddInt(options.answers)
      .Finish();
}

absl::StatusOr<std::vector<std::vector<Array>>> AblateAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  const int64_t per_token = KeptBytesPerToken(
      *pass.model, StartLayer(hook_out_, pass.model->config()));
  std::vector<std::vector<Array>> records;
  for (const std::vector<Placed>& group : GroupsThatFit(sequences, per_token)) {
    ASSIGN_OR_RETURN(
        std::vector<std::vector<Array>> more,
        Ablater(*dictionary_, hook_in_, hook_out_, options_, pass, group)
            .Run());
    std::move(more.begin(), more.end(), std::back_inserter(records));
  }
  return records;
}

}  // namespace cupola::analysis
