#include "server/analysis/run.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "server/analysis/changed_passes.h"
#include "server/analysis/readout.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using dictionary::SparseRows;
using model::HookKind;
using model::HookPoint;
using storage::Array;
using storage::DType;

constexpr HookPoint kFinal{HookKind::kFinalOut, -1};

// What one prompt showed under one set of interventions (or none).
struct Shown {
  std::map<HookPoint, at::Tensor> values;  // [positions, ...]
  Readout readout;
};

at::Tensor Index(const std::vector<int64_t>& indices) {
  return at::tensor(indices, at::kLong);
}

// The question's part of the run: what it captures.
std::set<HookPoint> CapturesOf(const RunOptions& options) {
  std::set<HookPoint> captures(options.hooks.begin(), options.hooks.end());
  for (const LatentReader& reader : options.readers) {
    captures.insert(reader.hook);
  }
  if (options.output) captures.insert(kFinal);
  return captures;
}

// One group of prompts, small enough for their clean state to be kept.
class Runner {
 public:
  Runner(const RunOptions& options, const Dictionaries& dictionaries,
         const Pass& pass, const std::vector<Placed>& sequences)
      : options_(options),
        dictionaries_(dictionaries),
        pass_(pass),
        sequences_(sequences),
        shown_(sequences.size(), std::vector<Shown>(options.sets.size() + 1)) {}

  absl::StatusOr<std::vector<std::vector<Array>>> Run() {
    std::vector<const std::vector<int32_t>*> prompts;
    for (const Placed& placed : sequences_) {
      prompts.push_back(&placed.sequence->tokens);
    }
    RETURN_IF_ERROR(MakeCopies());
    ChangedPasses passes(*pass_.model, dictionaries_, prompts,
                         CapturesOf(options_), pass_.poll);
    RETURN_IF_ERROR(ShowClean(passes));
    RETURN_IF_ERROR(passes.RunCopies(
        copies_, [this](const ChangedBatch& b) { return ShowChanged(b); }));
    return Records();
  }

 private:
  const Sequence& sequence(size_t prompt) const {
    return *sequences_[prompt].sequence;
  }

  absl::Status MakeCopies() {
    const bool square =
        std::any_of(options_.hooks.begin(), options_.hooks.end(), IsSquare);
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const std::vector<int64_t>& positions = sequence(i).positions;
      // A square point's rows have all the prompt's keys. -1: nothing is read.
      int64_t last = -1;
      if (!positions.empty()) {
        last = square ? static_cast<int64_t>(sequence(i).tokens.size()) - 1
                      : *std::max_element(positions.begin(), positions.end());
      }
      size_t next = 1;
      for (size_t set = 0; set < options_.sets.size(); ++set) {
        ChangedCopy copy{static_cast<int64_t>(i), {}, last};
        for (PlacedIntervention& placed :
             PlacedOf(options_.sets[set], sequence(i), &next)) {
          RowEdit edit{placed.intervention, std::move(placed.positions), {}};
          if (edit.intervention->change == Change::kPatch) {
            ASSIGN_OR_RETURN(edit.source, SourceOf(placed));
          }
          copy.edits.push_back(std::move(edit));
        }
        copies_.push_back(std::move(copy));
        variant_of_.push_back(set + 1);
      }
    }
    return absl::OkStatus();
  }

  // A patch's values: [positions, ...HookShape]. Prompts often share a source.
  absl::StatusOr<at::Tensor> SourceOf(const PlacedIntervention& placed) {
    const HookPoint& point = placed.intervention->hook;
    auto [found, missing] = sources_.try_emplace({point, placed.source});
    if (missing) {
      model::ForwardRequest request;
      request.batch = model::TokenBatch::Pack({&placed.source});
      request.captures = {point};
      request.poll = pass_.poll;
      ASSIGN_OR_RETURN(model::ForwardResult forward,
                       pass_.model->Forward(request));
      found->second = forward.captures.at(point)[0];
    }
    return found->second.index_select(
        0, Index(placed.source_positions).to(found->second.device()));
  }

  absl::Status ShowClean(ChangedPasses& passes) {
    ASSIGN_OR_RETURN(const model::ForwardResult forward,
                     passes.RunClean(copies_));
    std::vector<at::Tensor> finals, answers;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      for (const auto& [point, value] : forward.captures) {
        shown_[i][0].values[point] = SelectPositions(
            value, point, i, sequence(i).positions, sequence(i).tokens.size());
      }
      answers_.push_back(AnswersOf(sequence(i)));
      if (!options_.output) continue;
      finals.push_back(shown_[i][0].values.at(kFinal));
      answers.push_back(answers_.back());
    }
    if (options_.output) {
      ASSIGN_OR_RETURN(const Readout all,
                       ReadRows(*pass_.model, at::cat(finals),
                                {at::cat(answers), options_.top}, pass_.poll));
      int64_t begin = 0;
      for (size_t i = 0; i < sequences_.size(); ++i) {
        const int64_t rows = finals[i].size(0);
        shown_[i][0].readout = {all.logprob.narrow(0, begin, rows),
                                all.rank.narrow(0, begin, rows),
                                all.top_tokens.narrow(0, begin, rows),
                                all.top_logits.narrow(0, begin, rows)};
        begin += rows;
      }
    }
    for (auto& variants : shown_) {
      for (Shown& shown : variants) shown = variants[0];
    }
    return absl::OkStatus();
  }

  // int64 [positions, 1 + given]: the next token and the given answers.
  at::Tensor AnswersOf(const Sequence& sequence) const {
    const std::vector<int64_t>& given = sequence.lists[0];
    std::vector<int64_t> all;
    for (int64_t position : sequence.positions) {
      const size_t next = position + 1;
      all.push_back(next < sequence.tokens.size() ? sequence.tokens[next] : -1);
      all.insert(all.end(), given.begin(), given.end());
    }
    return Index(all).view({-1, 1 + static_cast<int64_t>(given.size())});
  }

  // Puts what the batch changed in place of the clean values.
  absl::Status ShowChanged(const ChangedBatch& batch) {
    std::vector<at::Tensor> read, answers, reached;
    for (size_t row = 0; row < batch.copies.size(); ++row) {
      const size_t copy = batch.copies[row];
      const size_t prompt = copies_[copy].prompt;
      std::vector<int64_t> places, positions;
      for (size_t i = 0; i < sequence(prompt).positions.size(); ++i) {
        const int64_t position = sequence(prompt).positions[i];
        if (position < batch.first[row]) continue;
        places.push_back(static_cast<int64_t>(i));
        positions.push_back(position - batch.first[row]);
      }
      reached.push_back(Index(places));
      const auto of_row = [&](const HookPoint& point, const at::Tensor& value) {
        return SelectPositions(value, point, row, positions,
                               sequence(prompt).tokens.size());
      };
      Shown& shown = shown_[prompt][variant_of_[copy]];
      for (const auto& [point, value] : batch.forward.captures) {
        at::Tensor& mine = shown.values.at(point);
        mine = mine.index_copy(0, reached.back().to(mine.device()),
                               of_row(point, value));
      }
      if (!options_.output) continue;
      read.push_back(batch.forward.logits.defined()
                         ? of_row({HookKind::kLogits, -1}, batch.forward.logits)
                         : of_row(kFinal, batch.forward.captures.at(kFinal)));
      answers.push_back(answers_[prompt].index_select(0, reached.back()));
    }
    if (!options_.output) return absl::OkStatus();
    const ReadoutRequest request{at::cat(answers), options_.top};
    Readout all;
    if (batch.forward.logits.defined()) {
      all = ReadLogits(at::cat(read), request);
    } else {
      ASSIGN_OR_RETURN(
          all, ReadRows(*pass_.model, at::cat(read), request, pass_.poll));
    }
    Distribute(batch, reached, all);
    return absl::OkStatus();
  }

  void Distribute(const ChangedBatch& batch,
                  const std::vector<at::Tensor>& reached, const Readout& all) {
    int64_t begin = 0;
    for (size_t row = 0; row < batch.copies.size(); ++row) {
      const size_t copy = batch.copies[row];
      Readout& mine = shown_[copies_[copy].prompt][variant_of_[copy]].readout;
      const int64_t rows = reached[row].numel();
      const auto put = [&](at::Tensor Readout::*member) {
        mine.*member = (mine.*member)
                           .index_copy(0, reached[row],
                                       (all.*member).narrow(0, begin, rows));
      };
      put(&Readout::logprob);
      put(&Readout::rank);
      put(&Readout::top_tokens);
      put(&Readout::top_logits);
      begin += rows;
    }
  }

  absl::StatusOr<std::vector<std::vector<Array>>> Records() {
    std::vector<std::vector<Array>> records(sequences_.size());
    for (size_t variant = 0; variant <= options_.sets.size(); ++variant) {
      for (size_t i = 0; i < sequences_.size(); ++i) {
        AddReadout(shown_[i][variant].readout, &records[i]);
      }
      for (const LatentReader& reader : options_.readers) {
        RETURN_IF_ERROR(AddLatents(reader, variant, &records));
      }
      for (const HookPoint& hook : options_.hooks) {
        for (size_t i = 0; i < sequences_.size(); ++i) {
          records[i].push_back(
              ToArray(shown_[i][variant].values.at(hook), DType::kFloat32));
        }
      }
    }
    return records;
  }

  void AddReadout(const Readout& readout, std::vector<Array>* record) const {
    if (!options_.output) {
      record->insert(record->end(), {{DType::kFloat32, {0}, {}},
                                     {DType::kFloat32, {0, 0}, {}},
                                     {DType::kInt32, {0, 0}, {}},
                                     {DType::kInt32, {0, 0}, {}},
                                     {DType::kFloat32, {0, 0}, {}}});
      return;
    }
    const int64_t skip = options_.answers > 0 ? 1 : 0;
    const int64_t columns = readout.logprob.size(1) - skip;
    record->push_back(
        ToArray(readout.logprob.select(1, 0).neg(), DType::kFloat32));
    record->push_back(
        ToArray(readout.logprob.narrow(1, skip, columns), DType::kFloat32));
    record->push_back(
        ToArray(readout.rank.narrow(1, skip, columns), DType::kInt32));
    record->push_back(ToArray(readout.top_tokens, DType::kInt32));
    record->push_back(ToArray(readout.top_logits, DType::kFloat32));
  }

  // One variant's latents of all prompts, encoded together.
  absl::Status AddLatents(const LatentReader& reader, size_t variant,
                          std::vector<std::vector<Array>>* records) const {
    std::vector<at::Tensor> blocks;
    for (const auto& variants : shown_) {
      const at::Tensor& rows = variants[variant].values.at(reader.hook);
      blocks.push_back(rows.flatten(1));
    }
    RETURN_IF_ERROR(pass_.poll());
    ASSIGN_OR_RETURN(
        const SparseRows all,
        dictionaries_[reader.dictionary]->Encode(at::cat(blocks), {}));
    int64_t row = 0;
    for (size_t i = 0; i < blocks.size(); ++i) {
      const at::Tensor indptr =
          all.indptr.narrow(0, row, blocks[i].size(0) + 1);
      const int64_t begin = indptr[0].item<int64_t>();
      const int64_t entries = indptr[-1].item<int64_t>() - begin;
      std::vector<Array>& record = (*records)[i];
      record.push_back(ToArray(indptr - begin, DType::kInt64));
      record.push_back(
          ToArray(all.indices.narrow(0, begin, entries), DType::kUInt32));
      record.push_back(
          ToArray(all.values.narrow(0, begin, entries), DType::kFloat32));
      row += blocks[i].size(0);
    }
    return absl::OkStatus();
  }

  const RunOptions& options_;
  const Dictionaries& dictionaries_;
  const Pass& pass_;
  const std::vector<Placed>& sequences_;
  std::vector<std::vector<Shown>> shown_;  // by prompt; clean, then the sets
  std::vector<at::Tensor> answers_;        // by prompt
  std::vector<ChangedCopy> copies_;
  std::vector<size_t> variant_of_;  // of each copy
  std::map<std::pair<HookPoint, std::vector<int32_t>>, at::Tensor> sources_;
};

// The first layer that any set changes.
int FirstLayer(const RunOptions& options, const model::ModelConfig& config) {
  int first = config.n_layers;
  for (const InterventionSet& set : options.sets) {
    for (const Intervention& intervention : set) {
      first = std::min(first, StartLayer(intervention.hook, config));
      if (intervention.on_latents()) {
        first = std::min(first, StartLayer(intervention.hook_in, config));
      }
    }
  }
  return first;
}

}  // namespace

std::vector<PlacedIntervention> PlacedOf(const InterventionSet& set,
                                         const Sequence& sequence,
                                         size_t* next) {
  std::vector<PlacedIntervention> placed;
  for (const Intervention& intervention : set) {
    PlacedIntervention& mine = placed.emplace_back();
    mine.intervention = &intervention;
    mine.positions = sequence.lists[(*next)++];
    if (intervention.change != Change::kPatch) continue;
    const std::vector<int64_t>& tokens = sequence.lists[(*next)++];
    mine.source.assign(tokens.begin(), tokens.end());
    mine.source_positions = sequence.lists[(*next)++];
  }
  return placed;
}

RunAnalysis::RunAnalysis(RunOptions options, Dictionaries dictionaries)
    : options_(std::move(options)), dictionaries_(std::move(dictionaries)) {}

storage::Digest RunAnalysis::Identity(
    const RunOptions& options,
    const std::vector<storage::Digest>& dictionaries) {
  storage::Hasher hasher("run/1");
  hasher.AddInt(options.output)
      .AddInt(options.answers)
      .AddInt(options.top)
      .AddInt(dictionaries.size());
  for (const storage::Digest& digest : dictionaries) hasher.AddDigest(digest);
  hasher.AddInt(options.sets.size());
  for (const InterventionSet& set : options.sets) {
    hasher.AddInt(set.size());
    for (const Intervention& intervention : set) {
      AddToIdentity(intervention, &hasher);
    }
  }
  hasher.AddInt(options.readers.size());
  for (const LatentReader& reader : options.readers) {
    hasher.AddInt(reader.dictionary).AddBytes(model::HookName(reader.hook));
  }
  for (const HookPoint& hook : options.hooks) {
    hasher.AddBytes(model::HookName(hook));
  }
  return hasher.Finish();
}

absl::StatusOr<std::vector<std::vector<Array>>> RunAnalysis::Run(
    const Pass& pass, const std::vector<Placed>& sequences) const {
  const int64_t per_token = KeptBytesPerToken(
      *pass.model, FirstLayer(options_, pass.model->config()));
  std::vector<std::vector<Array>> records;
  for (const std::vector<Placed>& group : GroupsThatFit(sequences, per_token)) {
    ASSIGN_OR_RETURN(std::vector<std::vector<Array>> more,
                     Runner(options_, dictionaries_, pass, group).Run());
    std::move(more.begin(), more.end(), std::back_inserter(records));
  }
  return records;
}

}  // namespace cupola::analysis
