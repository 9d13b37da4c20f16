#include "server/analysis/quality.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "ATen/ATen.h"
#include "server/analysis/readout.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using enum model::HookKind;

// The residual from which a changed pass may start: the one entering the
// changed point's layer.
std::set<model::HookPoint> StartOf(const model::HookPoint& changed) {
  if (changed.layer <= 0) return {};
  return {{kResidPre, changed.layer}};
}

// The sequences by themselves: as rows of a pass of their own.
std::vector<Placed> Renumbered(const std::vector<Placed>& sequences) {
  std::vector<Placed> own;
  for (size_t i = 0; i < sequences.size(); ++i) {
    own.push_back({sequences[i].sequence, static_cast<int64_t>(i)});
  }
  return own;
}

// Which rows of a [batch * longest] tensor the sequences' positions are.
at::Tensor FlatRows(const std::vector<Placed>& sequences, int64_t longest) {
  std::vector<int64_t> index;
  for (const Placed& placed : sequences) {
    for (int64_t position : placed.sequence->positions) {
      index.push_back(placed.row * longest + position);
    }
  }
  return at::tensor(index, at::kLong);
}

// Passes over the sequences with the dictionary's output point changed.
class Changed {
 public:
  Changed(const Pass& pass, const model::HookPoint& hook,
          const std::vector<Placed>& sequences)
      : pass_(pass), hook_(hook), sequences_(Renumbered(sequences)) {
    std::vector<const std::vector<int32_t>*> rows;
    std::vector<int64_t> places;
    for (const Placed& placed : sequences) {
      rows.push_back(&placed.sequence->tokens);
      places.push_back(placed.row);
    }
    request_.batch = model::TokenBatch::Pack(rows);
    request_.captures = {{kFinalOut}};
    request_.edits = {hook};
    request_.poll = pass.poll;
    for (const model::HookPoint& start : StartOf(hook)) {
      const at::Tensor& residual = pass.forward->captures.at(start);
      request_.start_layer = start.layer;
      request_.start_residual =
          residual
              .index_select(0,
                            at::tensor(places, at::kLong).to(residual.device()))
              .narrow(1, 0, request_.batch.tokens.size(1))
              .contiguous();
    }
  }

  // The final norm's output, with the selected rows of the point set to
  // `values` [rows, width] (undefined: zero).
  absl::StatusOr<Pass> Run(const at::Tensor& values,
                           model::ForwardResult* result) {
    request_.edit = [&](const model::HookPoint&, at::Tensor* value) {
      at::Tensor flat = value->view({value->size(0) * value->size(1), -1});
      const at::Tensor index =
          FlatRows(sequences_, value->size(1)).to(value->device());
      flat.index_copy_(
          0, index,
          values.defined()
              ? values.to(value->scalar_type())
              : at::zeros({index.size(0), flat.size(1)}, flat.options()));
      return absl::OkStatus();
    };
    ASSIGN_OR_RETURN(*result, pass_.model->Forward(request_));
    return Pass{pass_.model, result, pass_.poll};
  }

  const std::vector<Placed>& sequences() const { return sequences_; }

 private:
  const Pass& pass_;
  const model::HookPoint hook_;
  const std::vector<Placed> sequences_;
  model::ForwardRequest request_;
};

// The sequences with their scored positions selected.
struct Scored {
  Scored(const std::vector<Placed>& placed, bool every) {
    sequences.reserve(placed.size());
    std::vector<int64_t> next;
    for (const Placed& one : placed) {
      Sequence& sequence = sequences.emplace_back();
      sequence.tokens = one.sequence->tokens;
      sequence.positions = ScoredPositions(*one.sequence, every);
      for (int64_t position : sequence.positions) {
        next.push_back(sequence.tokens[position + 1]);
      }
    }
    targets = at::tensor(next, at::kLong);
  }
  // float32 [scored of all sequences].
  absl::StatusOr<at::Tensor> Loss(const Pass& pass,
                                  const std::vector<Placed>& placed) const {
    std::vector<Placed> here;
    for (size_t i = 0; i < placed.size(); ++i) {
      here.push_back({&sequences[i], placed[i].row});
    }
    ASSIGN_OR_RETURN(const at::Tensor rows,
                     GatherRows(pass, {kFinalOut}, here));
    ReadoutRequest request;
    request.answers = targets.unsqueeze(-1);
    ASSIGN_OR_RETURN(const Readout readout,
                     ReadRows(*pass.model, rows, request, pass.poll));
    return -readout.logprob.squeeze(-1);
  }

  std::vector<Sequence> sequences;
  at::Tensor targets;
};

}  // namespace

std::vector<int64_t> ScoredPositions(const Sequence& sequence, bool every) {
  const int64_t last = static_cast<int64_t>(sequence.tokens.size()) - 1;
  std::vector<int64_t> scored;
  if (every) {
    scored.resize(last);
    std::iota(scored.begin(), scored.end(), 0);
  } else {
    std::copy_if(sequence.positions.begin(), sequence.positions.end(),
                 std::back_inserter(scored),
                 [last](int64_t position) { return position < last; });
  }
  return scored;
}

QualityAnalysis::QualityAnalysis(
    std::shared_ptr<const dictionary::Dictionary> dictionary,
    model::HookPoint hook_in, model::HookPoint hook_out, bool score_every)
    : dictionary_(std::move(dictionary)),
      hook_in_(hook_in),
      hook_out_(hook_out),
      score_every_(score_every) {}

storage::Digest QualityAnalysis::Identity(const storage::Digest& dictionary,
                                          dictionary::Half half,
                                          bool score_every) {
  return storage::Hasher("quality/1")
      .AddDigest(dictionary)
      .AddInt(static_cast<int64_t>(half))
      .AddInt(score_every)
      .Finish();
}

std::set<model::HookPoint> QualityAnalysis::captures() const {
  std::set<model::HookPoint> hooks = StartOf(hook_out_);
  hooks.insert({hook_in_, hook_out_, {kFinalOut}});
  return hooks;
}

absl::StatusOr<std::vector<std::vector<storage::Array>>> QualityAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  ASSIGN_OR_RETURN(const at::Tensor x, GatherRows(pass, hook_in_, sequences));
  ASSIGN_OR_RETURN(const dictionary::SparseRows features,
                   dictionary_->Encode(x, {}));
  ASSIGN_OR_RETURN(const at::Tensor reconstruction,
                   dictionary_->Decode(features, x));
  ASSIGN_OR_RETURN(at::Tensor target, GatherRows(pass, hook_out_, sequences));
  target = target.to(at::kFloat);
  const at::Tensor error = (target - reconstruction).square().sum(-1);
  const at::Tensor l0 = features.indptr.diff().to(at::kFloat);

  const Scored scored(sequences, score_every_);
  ASSIGN_OR_RETURN(const at::Tensor clean, scored.Loss(pass, sequences));
  Changed changed(pass, hook_out_, sequences);
  model::ForwardResult result;
  ASSIGN_OR_RETURN(const Pass zero_pass, changed.Run({}, &result));
  ASSIGN_OR_RETURN(const at::Tensor zero,
                   scored.Loss(zero_pass, changed.sequences()));
  ASSIGN_OR_RETURN(const Pass pass_of, changed.Run(reconstruction, &result));
  ASSIGN_OR_RETURN(const at::Tensor reconstructed,
                   scored.Loss(pass_of, changed.sequences()));
  const at::Tensor losses = at::stack({clean, zero, reconstructed}, -1);

  std::vector<std::vector<storage::Array>> records;
  int64_t row = 0, loss = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const int64_t rows = RowCount(*sequences[i].sequence);
    const int64_t count = scored.sequences[i].positions.size();
    const at::Tensor mine = target.narrow(0, row, rows).to(at::kDouble);
    const auto floats = [](const at::Tensor& tensor) {
      return ToArray(tensor, storage::DType::kFloat32);
    };
    records.push_back(
        {floats(losses.narrow(0, loss, count)),
         floats(error.narrow(0, row, rows)), floats(l0.narrow(0, row, rows)),
         ToArray(mine.sum(0), storage::DType::kFloat64),
         ToArray(mine.square().sum().view({1}), storage::DType::kFloat64)});
    row += rows;
    loss += count;
  }
  return records;
}

QualitySummary Summarize(
    const std::vector<std::shared_ptr<const std::vector<storage::Array>>>&
        records) {
  at::Tensor losses = at::zeros({3}, at::kDouble), sum;
  double scored = 0, rows = 0, error = 0, active = 0, squares = 0;
  for (const auto& record : records) {
    const at::Tensor mine = ViewOf((*record)[0]);
    losses += mine.sum(0, /*keepdim=*/false, at::kDouble);
    scored += mine.size(0);
    error += ViewOf((*record)[1]).sum(at::kDouble).item<double>();
    active += ViewOf((*record)[2]).sum(at::kDouble).item<double>();
    rows += ViewOf((*record)[1]).size(0);
    sum = sum.defined() ? sum + ViewOf((*record)[3])
                        : ViewOf((*record)[3]).clone();
    squares += ViewOf((*record)[4]).item<double>();
  }
  QualitySummary summary;
  losses /= scored;
  summary.clean_loss = losses[0].item<double>();
  summary.zero_loss = losses[1].item<double>();
  summary.reconstruction_loss = losses[2].item<double>();
  summary.loss_recovered = (summary.zero_loss - summary.reconstruction_loss) /
                           (summary.zero_loss - summary.clean_loss);
  const double variance = squares - sum.square().sum().item<double>() / rows;
  // Equal rows leave a rounding's remainder.
  summary.fvu = variance > 1e-12 * squares
                    ? error / variance
                    : std::numeric_limits<double>::quiet_NaN();
  summary.mean_squared_error = error / (rows * sum.size(0));
  summary.l0 = active / rows;
  return summary;
}

}  // namespace cupola::analysis
