#include "server/analysis/run_group.h"

#include <algorithm>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "server/analysis/latent_records.h"
#include "server/analysis/rows.h"
#include "server/analysis/tensor_io.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using model::HookKind;
using model::HookPoint;
using storage::Array;
using storage::DType;

constexpr HookPoint kFinal{HookKind::kFinalOut, -1};

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

// The sets as copies that tell which layers the clean pass must keep.
std::vector<ChangedCopy> KindsOf(const RunOptions& options) {
  std::vector<ChangedCopy> kinds;
  for (const InterventionSet& set : options.sets) {
    if (set.empty()) continue;
    ChangedCopy& kind = kinds.emplace_back();
    for (const Intervention& intervention : set) {
      kind.edits.push_back({&intervention, {}, {}});
    }
  }
  return kinds;
}

// Rows `begin` to `begin + rows` of all that was read.
Readout Narrow(const Readout& all, int64_t begin, int64_t rows) {
  Readout some = {all.logprob.narrow(0, begin, rows),
                  all.rank.narrow(0, begin, rows),
                  all.top_tokens.narrow(0, begin, rows),
                  all.top_logits.narrow(0, begin, rows)};
  if (all.distribution.defined()) {
    some.distribution = all.distribution.narrow(0, begin, rows);
  }
  return some;
}

}  // namespace

RunGroup::RunGroup(const RunOptions& options, const Dictionaries& dictionaries,
                   const Pass& pass, const std::vector<Placed>& sequences)
    : options_(options),
      dictionaries_(dictionaries),
      pass_(pass),
      sequences_(sequences),
      sources_(pass),
      next_list_(sequences.size(), 1),
      clean_(sequences.size(), std::vector<Shown>(1)),
      records_(sequences.size()) {}

absl::StatusOr<std::vector<std::vector<Array>>> RunGroup::Run() {
  std::vector<const std::vector<int32_t>*> prompts;
  for (const Placed& placed : sequences_) {
    prompts.push_back(&placed.sequence->tokens);
  }
  ChangedPasses passes(*pass_.model, dictionaries_, prompts,
                       CapturesOf(options_), pass_.poll);
  RETURN_IF_ERROR(ShowClean(passes));
  RETURN_IF_ERROR(AddRecords(clean_));
  const size_t at_once = SetsAtOnce();
  for (size_t set = 0; set < options_.sets.size(); set += at_once) {
    const size_t sets = std::min(at_once, options_.sets.size() - set);
    RETURN_IF_ERROR(MakeCopies(set, sets));
    RETURN_IF_ERROR(passes.RunCopies(
        copies_, [this](const ChangedBatch& b) { return ShowChanged(b); }));
    RETURN_IF_ERROR(AddRecords(shown_));
  }
  return std::move(records_);
}

int64_t RunGroup::BytesPerRow(const RunOptions& options,
                              const model::ModelConfig& config,
                              int64_t longest) {
  int64_t values = options.distribution ? config.d_vocab : 0;
  const auto add = [&](const HookPoint& point) {
    int64_t size = 1;
    for (int64_t part : model::HookShape(point, config)) {
      size *= part < 0 ? longest : part;
    }
    values += size;
  };
  for (const HookPoint& point : CapturesOf(options)) add(point);
  std::set<HookPoint> patched;
  for (const InterventionSet& set : options.sets) {
    for (const Intervention& intervention : set) {
      if (intervention.change == Change::kPatch) {
        patched.insert(intervention.hook);
      }
    }
  }
  for (const HookPoint& point : patched) add(point);
  return values * static_cast<int64_t>(sizeof(float));
}

size_t RunGroup::SetsAtOnce() const {
  int64_t rows = 0, longest = 0;
  for (const Placed& placed : sequences_) {
    const int64_t tokens = placed.sequence->tokens.size();
    longest = std::max(longest, tokens);
    rows += RowCount(*placed.sequence);
  }
  const int64_t bytes =
      rows * BytesPerRow(options_, pass_.model->config(), longest) +
      static_cast<int64_t>(sequences_.size()) * kBytesPerVariant;
  return std::max<int64_t>(1,
                           options_.work_bytes / std::max<int64_t>(1, bytes));
}

absl::Status RunGroup::ShowClean(ChangedPasses& passes) {
  ASSIGN_OR_RETURN(const model::ForwardResult forward,
                   passes.RunClean(KindsOf(options_)));
  std::vector<at::Tensor> finals, answers;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    for (const auto& [point, value] : forward.captures) {
      clean_[i][0].values[point] = SelectPositions(
          value, point, i, sequence(i).positions, sequence(i).tokens.size());
    }
    answers_.push_back(AnswersOf(sequence(i)));
    if (!options_.output) continue;
    finals.push_back(clean_[i][0].values.at(kFinal));
    answers.push_back(answers_.back());
  }
  if (!options_.output) return absl::OkStatus();
  const ReadoutRequest request{at::cat(answers), options_.top,
                               options_.distribution};
  ASSIGN_OR_RETURN(const Readout all, ReadRows(*pass_.model, at::cat(finals),
                                               request, pass_.poll));
  int64_t begin = 0;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const int64_t rows = finals[i].size(0);
    clean_[i][0].readout = Narrow(all, begin, rows);
    begin += rows;
  }
  return absl::OkStatus();
}

// int64 [positions, 1 + given]: the next token and the given answers.
at::Tensor RunGroup::AnswersOf(const Sequence& sequence) const {
  const std::vector<int64_t>& given = sequence.lists[0];
  std::vector<int64_t> all;
  for (int64_t position : sequence.positions) {
    const size_t next = position + 1;
    all.push_back(next < sequence.tokens.size() ? sequence.tokens[next] : -1);
    all.insert(all.end(), given.begin(), given.end());
  }
  return Index(all).view({-1, 1 + static_cast<int64_t>(given.size())});
}

absl::Status RunGroup::MakeCopies(size_t first_set, size_t sets) {
  copies_.clear();
  variant_of_.clear();
  sources_.Clear();
  shown_.clear();
  const bool square =
      std::any_of(options_.hooks.begin(), options_.hooks.end(), IsSquare);
  for (size_t i = 0; i < sequences_.size(); ++i) {
    shown_.emplace_back(sets, clean_[i][0]);
    const std::vector<int64_t>& positions = sequence(i).positions;
    // A square point's rows have all the prompt's keys. -1: nothing is read.
    int64_t last = -1;
    if (!positions.empty()) {
      last = square ? static_cast<int64_t>(sequence(i).tokens.size()) - 1
                    : *std::max_element(positions.begin(), positions.end());
    }
    for (size_t set = 0; set < sets; ++set) {
      ChangedCopy copy{static_cast<int64_t>(i), {}, last};
      for (PlacedIntervention& placed : PlacedOf(options_.sets[first_set + set],
                                                 sequence(i), &next_list_[i])) {
        RowEdit edit{placed.intervention,
                     std::move(placed.positions),
                     {},
                     std::move(placed.value_rows)};
        if (edit.intervention->change == Change::kPatch) {
          ASSIGN_OR_RETURN(edit.source, sources_.Of(placed));
        }
        copy.edits.push_back(std::move(edit));
      }
      copies_.push_back(std::move(copy));
      variant_of_.push_back(set);
    }
  }
  return absl::OkStatus();
}

absl::Status RunGroup::ShowChanged(const ChangedBatch& batch) {
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
  const ReadoutRequest request{at::cat(answers), options_.top,
                               options_.distribution};
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

void RunGroup::Distribute(const ChangedBatch& batch,
                          const std::vector<at::Tensor>& reached,
                          const Readout& all) {
  int64_t begin = 0;
  for (size_t row = 0; row < batch.copies.size(); ++row) {
    const size_t copy = batch.copies[row];
    Readout& mine = shown_[copies_[copy].prompt][variant_of_[copy]].readout;
    const int64_t rows = reached[row].numel();
    const Readout its = Narrow(all, begin, rows);
    const auto put = [&](at::Tensor Readout::*member) {
      if (!(mine.*member).defined()) return;
      mine.*member = (mine.*member).index_copy(0, reached[row], its.*member);
    };
    put(&Readout::logprob);
    put(&Readout::rank);
    put(&Readout::top_tokens);
    put(&Readout::top_logits);
    put(&Readout::distribution);
    begin += rows;
  }
}

// Appends all variants of `shown` to the prompts' records, variant by variant.
absl::Status RunGroup::AddRecords(const Variants& shown) {
  const size_t variants = shown.front().size();
  std::vector<int64_t> rows;
  for (size_t v = 0; v < variants; ++v) {
    for (const Placed& placed : sequences_) {
      rows.push_back(RowCount(*placed.sequence));
    }
  }
  // By reader, then by variant and prompt.
  std::vector<std::vector<std::vector<Array>>> latents;
  for (const LatentReader& reader : options_.readers) {
    LatentRecords mine(rows);
    for (size_t v = 0; v < variants; ++v) {
      std::vector<at::Tensor> blocks;
      for (const auto& prompt : shown) {
        blocks.push_back(prompt[v].values.at(reader.hook).flatten(1));
      }
      RETURN_IF_ERROR(mine.Encode(*dictionaries_[reader.dictionary],
                                  at::cat(blocks), {}, pass_.poll));
      if (latent_bytes_ + mine.bytes() > options_.max_record_bytes) {
        return absl::ResourceExhaustedError(absl::StrCat(
            "dictionaries: the latents of ", sequences_.size(),
            " prompts hold more than ", options_.max_record_bytes,
            " bytes; accepted: at most so many; ask for fewer prompts, "
            "positions or interventions at a time"));
      }
    }
    latent_bytes_ += mine.bytes();
    latents.push_back(mine.Finish());
  }
  for (size_t v = 0; v < variants; ++v) {
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const Shown& mine = shown[i][v];
      std::vector<Array>& record = records_[i];
      AddReadout(mine.readout, i, &record);
      for (auto& reader : latents) {
        std::vector<Array>& arrays = reader[v * sequences_.size() + i];
        std::move(arrays.begin(), arrays.end(), std::back_inserter(record));
      }
      for (const HookPoint& hook : options_.hooks) {
        record.push_back(ToArray(mine.values.at(hook), DType::kFloat32));
      }
    }
  }
  return absl::OkStatus();
}

void RunGroup::AddReadout(const Readout& readout, size_t prompt,
                          std::vector<Array>* record) const {
  const Array no_ranks{DType::kInt32, {0, 0}, {}};
  const Array no_logits{DType::kFloat32, {0, 0}, {}};
  if (!options_.output) {
    const Array no_loss{DType::kFloat32, {0}, {}};
    record->insert(record->end(),
                   {no_loss, no_logits, no_ranks, no_ranks, no_logits});
    return;
  }
  record->push_back(LossOf(readout, prompt));
  if (options_.mean_loss && options_.answers == 0) {
    record->insert(record->end(), {no_logits, no_ranks});
  } else {
    const int64_t skip = options_.answers > 0 ? 1 : 0;
    const int64_t columns = readout.logprob.size(1) - skip;
    record->push_back(
        ToArray(readout.logprob.narrow(1, skip, columns), DType::kFloat32));
    record->push_back(
        ToArray(readout.rank.narrow(1, skip, columns), DType::kInt32));
  }
  record->push_back(ToArray(readout.top_tokens, DType::kInt32));
  record->push_back(ToArray(readout.top_logits, DType::kFloat32));
  if (options_.distribution) {
    record->push_back(ToArray(readout.distribution[0], DType::kFloat32));
  }
}

Array RunGroup::LossOf(const Readout& readout, size_t prompt) const {
  const at::Tensor loss = readout.logprob.select(1, 0).neg();
  if (!options_.mean_loss) return ToArray(loss, DType::kFloat32);
  // What the last token predicts is unknown. A loss that an intervention made
  // no number counts.
  const at::Tensor known =
      answers_[prompt].select(1, 0).ge(0).nonzero().squeeze(1);
  return ToArray(loss.index_select(0, known).mean(at::kDouble).view({1}),
                 DType::kFloat32);
}

}  // namespace cupola::analysis
