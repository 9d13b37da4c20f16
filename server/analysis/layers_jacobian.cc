#include "server/analysis/layers_jacobian.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/changed_passes.h"
#include "server/analysis/encoder_directions.h"
#include "server/analysis/layers_backward.h"
#include "server/analysis/rows.h"
#include "server/analysis/sandwich.h"
#include "server/analysis/token_map.h"
#include "server/dictionary/weights.h"
#include "server/model/checkpointed_pass.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using storage::Array;

// float32 values that a lane's rows may hold on their way, and that all lanes
// that go together may hold between blocks.
constexpr int64_t kLaneValues = int64_t{1} << 24;
constexpr int64_t kHeldValues = int64_t{1} << 25;
// What one prompt may need beside them.
constexpr int64_t kMaxBytes = int64_t{4} << 30;

// A residual entering a layer is the one leaving the layer before.
model::BackwardSpan Shortened(model::BackwardSpan span) {
  using enum model::HookKind;
  if (span.from.kind == kResidPre && span.from.layer > span.to.layer) {
    span.from = {kResidPost, span.from.layer - 1};
  }
  return span;
}

}  // namespace

// Some prompts whose clean pass is kept at a time.
class LayersJacobianAnalysis::Group {
 public:
  Group(const LayersJacobianAnalysis& owner, const Pass& pass,
        const std::vector<Placed>& sequences)
      : owner_(owner),
        options_(owner.options_),
        pass_(pass),
        span_(Shortened(options_.span)) {
    for (const Placed& placed : sequences) {
      placed_.push_back(
          {placed.sequence, static_cast<int64_t>(placed_.size())});
    }
  }

  absl::StatusOr<std::vector<std::vector<Array>>> Run() {
    RETURN_IF_ERROR(RunModel());
    RETURN_IF_ERROR(FindLatents());
    std::vector<std::vector<Array>> records;
    for (const Prompt& prompt : prompts_) {
      RETURN_IF_ERROR(prompt.record->CheckBytes());
    }
    if (options_.block) RETURN_IF_ERROR(Differentiate());
    for (Prompt& prompt : prompts_) {
      records.push_back(prompt.record->Finish());
    }
    return records;
  }

 private:
  // A sequence, its latents and the way to its record.
  struct Prompt {
    const Sequence* sequence = nullptr;
    ActiveLatents in, out;
    at::Tensor encoders;  // index into directions_ [outputs, k_out]
    std::optional<Normalisation> encode_norm;
    std::optional<LayersRecord> record;
    // Gradients of the next rows whose slots are not all there yet.
    std::vector<at::Tensor> pending;
    int64_t slots_pending = 0;
  };

  // Cotangents of slots [slot, slot + slots) of outputs [output, + outputs).
  struct Work {
    size_t prompt = 0;
    int64_t output = 0, outputs = 1, slot = 0, slots = 0;
    int64_t held = 0;  // values between blocks
  };

  absl::Status RunModel() {
    std::vector<const std::vector<int32_t>*> rows;
    for (const Placed& placed : placed_)
      rows.push_back(&placed.sequence->tokens);
    ASSIGN_OR_RETURN(
        auto made,
        model::CheckpointedPass::Run(
            *pass_.model, model::TokenBatch::Pack(rows), span_.to.layer,
            span_.from.layer, {options_.read, options_.span.from}, pass_.poll));
    clean_.emplace(std::move(made));
    return absl::OkStatus();
  }

  absl::Status FindLatents() {
    const Pass own = {pass_.model, &clean_->result(), pass_.poll};
    std::deque<Sequence> sources;
    std::vector<Placed> at_sources;
    for (const Placed& placed : placed_) {
      Sequence& only = sources.emplace_back();
      only.positions = InPositions(*placed.sequence);
      at_sources.push_back({&only, placed.row});
    }
    ASSIGN_OR_RETURN(at::Tensor read,
                     GatherRows(own, options_.read, at_sources));
    ASSIGN_OR_RETURN(at::Tensor y,
                     GatherRows(own, options_.span.from, placed_));
    read = read.to(at::kFloat);
    y = y.to(at::kFloat);
    ASSIGN_OR_RETURN(const ActiveLatents in,
                     FindActive(*owner_.in_, read, options_.mask));
    RETURN_IF_ERROR(pass_.poll());
    ASSIGN_OR_RETURN(const ActiveLatents out,
                     FindActive(*owner_.out_, y, options_.mask));
    RETURN_IF_ERROR(pass_.poll());
    const at::Tensor scale = DecodeScale(*owner_.in_, read);
    at::Tensor encoders;
    if (options_.block && out.width() > 0) {
      const auto [latents, inverse, counts] =
          at::_unique2(out.safe(), /*sorted=*/true, /*return_inverse=*/true);
      const at::Tensor host = latents.cpu();
      const int64_t* first = host.const_data_ptr<int64_t>();
      // Rows are derivatives by the encoder's input also where that is
      // normalised.
      directions_ =
          EncoderDirectionsOf(*owner_.out_, {first, first + host.numel()}).rows;
      encoders = inverse;
    }
    int64_t in_begin = 0, out_begin = 0;
    for (size_t i = 0; i < placed_.size(); ++i) {
      Prompt& prompt = prompts_.emplace_back();
      prompt.sequence = placed_[i].sequence;
      const int64_t in_rows = sources[i].positions.size();
      const int64_t out_rows = RowCount(*prompt.sequence);
      prompt.in = in.Rows(in_begin, in_rows);
      prompt.out = out.Rows(out_begin, out_rows);
      if (encoders.defined()) {
        prompt.encoders = encoders.narrow(0, out_begin, out_rows)
                              .narrow(1, 0, prompt.out.width());
      }
      const dictionary::Normalize normalize = owner_.out_->manifest().normalize;
      if (out_rows > 0 && Normalisation::Normalises(normalize)) {
        prompt.encode_norm.emplace(normalize, y.narrow(0, out_begin, out_rows));
      }
      prompt.record.emplace(
          *owner_.in_, options_, *prompt.sequence, prompt.in, prompt.out,
          scale.defined() ? scale.narrow(0, in_begin, in_rows) : scale,
          owner_.max_bytes_);
      in_begin += in_rows;
      out_begin += out_rows;
    }
    return absl::OkStatus();
  }

  // Every position that some output's sources name.
  std::vector<int64_t> InPositions(const Sequence& sequence) const {
    if (options_.sources == SourceRule::kSame) return sequence.positions;
    if (sequence.positions.empty()) return {};
    return SourcesOf(options_.sources, sequence,
                     *std::max_element(sequence.positions.begin(),
                                       sequence.positions.end()));
  }

  absl::Status Differentiate() {
    std::vector<Work> chunk;
    int64_t held = 0;
    for (size_t i = 0; i < prompts_.size(); ++i) {
      for (const Work& work : WorkOf(i)) {
        if (!chunk.empty() && held + work.held > kHeldValues) {
          RETURN_IF_ERROR(RunChunk(chunk));
          chunk.clear();
          held = 0;
        }
        chunk.push_back(work);
        held += work.held;
      }
    }
    return chunk.empty() ? absl::OkStatus() : RunChunk(chunk);
  }

  // A prompt's outputs and slots, in parts of bounded size.
  std::vector<Work> WorkOf(size_t index) const {
    const Prompt& prompt = prompts_[index];
    const int64_t outputs = prompt.out.rows(), k_out = prompt.out.width();
    const int64_t d_model = pass_.model->config().d_model;
    std::vector<Work> all;
    for (int64_t output = 0; output < outputs && k_out > 0;) {
      const BackwardLane one = Places(prompt, {index, output, 1, 0, 1, 0});
      const int64_t values = BackwardValuesPerRow(pass_.model->config(), one);
      const int64_t slots = std::clamp<int64_t>(kLaneValues / values, 1, k_out);
      Work work = {index, output, 1, 0, slots, 0};
      if (one.own && slots == k_out) {
        work.outputs = std::clamp<int64_t>(kLaneValues / (values * k_out), 1,
                                           outputs - output);
      }
      const int64_t window =
          one.own ? work.outputs
                  : prompt.sequence->positions[output] + 1;  // at most
      for (; work.slot < k_out; work.slot += slots) {
        work.slots = std::min(slots, k_out - work.slot);
        work.held = work.slots * window * d_model;
        all.push_back(work);
      }
      output += work.outputs;
    }
    return all;
  }

  // A lane without its cotangents' values.
  BackwardLane Places(const Prompt& prompt, const Work& work) const {
    const std::vector<int64_t>& positions = prompt.sequence->positions;
    BackwardLane lane;
    lane.row = static_cast<int64_t>(work.prompt);
    lane.cotangents.positions = {
        positions.begin() + work.output,
        positions.begin() + work.output + work.outputs};
    lane.own = options_.sources == SourceRule::kSame;
    if (!lane.own) {
      lane.sources =
          SourcesOf(options_.sources, *prompt.sequence, positions[work.output]);
    }
    return lane;
  }

  // Output latents' derivatives by y: [slots, outputs, d].
  at::Tensor Start(const Prompt& prompt, const Work& work) const {
    const auto part = [&work](const at::Tensor& x) {
      return x.narrow(0, work.output, work.outputs)
          .narrow(1, work.slot, work.slots);
    };
    const at::Tensor index = part(prompt.encoders);
    at::Tensor rows =
        directions_.index_select(0, index.reshape({-1}))
            .view({work.outputs, work.slots, directions_.size(1)});
    rows = rows * part(prompt.out.valid()).unsqueeze(-1);
    if (prompt.encode_norm.has_value()) {
      const at::Tensor tokens =
          at::arange(work.output, work.output + work.outputs, index.options());
      rows = Apply(Transposed(prompt.encode_norm->Select(tokens).derivative()),
                   rows);
    }
    return rows.transpose(0, 1).contiguous();
  }

  absl::Status RunChunk(const std::vector<Work>& chunk) {
    std::vector<BackwardLane> lanes;
    for (const Work& work : chunk) {
      const Prompt& prompt = prompts_[work.prompt];
      BackwardLane& lane = lanes.emplace_back(Places(prompt, work));
      lane.cotangents.values = Start(prompt, work);
    }
    RETURN_IF_ERROR(GoBack(*pass_.model, span_, *clean_, pass_.poll, &lanes));
    for (size_t i = 0; i < chunk.size(); ++i) {
      RETURN_IF_ERROR(pass_.poll());
      RETURN_IF_ERROR(Take(chunk[i], std::move(lanes[i].cotangents)));
    }
    return absl::OkStatus();
  }

  // Gradients at x, of the next rows of a prompt, or of some slots of theirs.
  absl::Status Take(const Work& work, model::Cotangents found) {
    Prompt& prompt = prompts_[work.prompt];
    at::Tensor rows = found.values;
    if (!rows.defined()) {
      rows =
          at::zeros({work.slots, static_cast<int64_t>(found.positions.size()),
                     owner_.in_->d_out()},
                    directions_.options());
    }
    prompt.pending.push_back(rows.transpose(0, 1));
    prompt.slots_pending += work.slots;
    if (prompt.slots_pending < prompt.out.width()) return absl::OkStatus();
    rows = at::cat(prompt.pending, 1);
    prompt.pending.clear();
    prompt.slots_pending = 0;
    return prompt.record->Append(rows, pass_.poll);
  }

  const LayersJacobianAnalysis& owner_;
  const LayersJacobianOptions& options_;
  const Pass& pass_;
  const model::BackwardSpan span_;
  std::vector<Placed> placed_;
  std::optional<model::CheckpointedPass> clean_;
  at::Tensor directions_;  // [latents, d] of the output's encoder
  std::vector<Prompt> prompts_;
};

LayersJacobianAnalysis::LayersJacobianAnalysis(DictionaryPtr in,
                                               DictionaryPtr out,
                                               LayersJacobianOptions options,
                                               int64_t max_bytes)
    : in_(std::move(in)),
      out_(std::move(out)),
      options_(options),
      max_bytes_(max_bytes) {}

storage::Digest LayersJacobianAnalysis::Identity(
    const storage::Digest& in, dictionary::Half in_half,
    const storage::Digest& out, dictionary::Half out_half,
    const LayersJacobianOptions& options) {
  return storage::Hasher("layers-jacobian/1")
      .AddDigest(in)
      .AddInt(static_cast<int64_t>(in_half))
      .AddDigest(out)
      .AddInt(static_cast<int64_t>(out_half))
      .AddInt(options.span.frozen)
      .AddInt(static_cast<int64_t>(options.sources))
      .AddInt(static_cast<int64_t>(options.mask))
      .AddInt(options.all_inputs)
      .AddDouble(options.min_abs)
      .AddInt(options.top)
      .AddInt(options.block)
      .Finish();
}

absl::StatusOr<std::vector<std::vector<Array>>> LayersJacobianAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  const model::ModelConfig& config = pass.model->config();
  for (const Placed& placed : sequences) {
    const int64_t tokens = placed.sequence->tokens.size();
    const int64_t bytes = BackwardBytes(config, options_.span, tokens);
    if (bytes > kMaxBytes) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "prompts: one of ", tokens, " tokens would need ", bytes,
          " bytes on the way back through its layers; accepted: ", kMaxBytes));
    }
  }
  const int64_t per_token = BackwardBytes(config, options_.span, 1) -
                            BackwardBytes(config, options_.span, 0);
  std::vector<std::vector<Array>> records;
  for (const auto& some : GroupsThatFit(sequences, per_token)) {
    ASSIGN_OR_RETURN(std::vector<std::vector<Array>> more,
                     Group(*this, pass, some).Run());
    for (auto& record : more) records.push_back(std::move(record));
  }
  return records;
}

}  // namespace cupola::analysis
