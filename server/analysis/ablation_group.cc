#include "server/analysis/ablation_group.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/edits.h"
#include "server/analysis/intervention.h"
#include "server/analysis/rows.h"
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

constexpr HookPoint kFinal{HookKind::kFinalOut, -1};
// Changed activations that exist at a time.
constexpr int64_t kChunkRows = 8192;

// Where a change of `point` is made: what leaves a block enters the next, and
// starting there spares a block.
HookPoint ChangePoint(const HookPoint& point,
                      const model::ModelConfig& config) {
  if (point.kind == HookKind::kResidPost && point.layer + 1 < config.n_layers) {
    return {HookKind::kResidPre, point.layer + 1};
  }
  return point;
}

at::Tensor Index(const std::vector<int64_t>& indices) {
  return at::tensor(indices, at::kLong);
}

}  // namespace

AblationGroup::AblationGroup(const Dictionary& dictionary,
                             const HookPoint& hook_in,
                             const HookPoint& hook_out,
                             const AblateOptions& options, const Pass& pass,
                             const std::vector<Placed>& sequences)
    : dictionary_(dictionary),
      hook_in_(hook_in),
      hook_out_(hook_out),
      options_(options),
      pass_(pass),
      sequences_(sequences),
      width_(1 + options.answers) {
  // As they stay where no place is given.
  found_.clean.logprob = at::empty({0, width_}, at::kFloat);
  found_.clean.rank = at::empty({0, width_}, at::kInt);
  int64_t longest = 0;
  for (const Placed& placed : sequences) {
    longest = std::max<int64_t>(longest, placed.sequence->tokens.size());
  }
  found_.clean_losses =
      at::full({static_cast<int64_t>(sequences.size()), longest - 1},
               std::numeric_limits<float>::quiet_NaN(), at::kFloat);
  addition_.change = Change::kAdd;
  addition_.hook = ChangePoint(hook_out, pass.model->config());
}

absl::StatusOr<std::vector<std::vector<Array>>> AblationGroup::Run() {
  std::vector<const std::vector<int32_t>*> prompts;
  for (const Placed& placed : sequences_) {
    prompts.push_back(&placed.sequence->tokens);
  }
  ChangedPasses passes(*pass_.model, no_dictionaries_, prompts,
                       {hook_in_, hook_out_, kFinal}, pass_.poll);
  FindPlaces();
  if (!found_.places.empty()) RETURN_IF_ERROR(RunClean(passes));
  RETURN_IF_ERROR(AllocateChanged());
  for (size_t begin = 0; begin < found_.ablations.size();) {
    const size_t end = ChunkEnd(begin);
    RETURN_IF_ERROR(passes.RunCopies(
        CopiesOf(begin, end),
        [&](const ChangedBatch& batch) { return ReadBatch(batch, begin); }));
    begin = end;
  }
  std::vector<std::vector<Array>> records;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    RETURN_IF_ERROR(pass_.poll());
    records.push_back(RecordOf(found_, options_, static_cast<int64_t>(i),
                               sequence(i).tokens.size()));
  }
  return records;
}

void AblationGroup::FindPlaces() {
  int64_t row = 0;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& mine = sequence(i);
    const int64_t prompt = static_cast<int64_t>(i);
    if (options_.together) {
      const int64_t read = static_cast<int64_t>(mine.tokens.size()) - 2;
      found_.places.push_back(
          {prompt, mine.positions, row, read, 0, &mine.lists[1]});
      row += RowCount(mine);
      continue;
    }
    for (size_t k = 0; k < mine.positions.size(); ++k) {
      const int64_t position = mine.positions[k];
      found_.places.push_back(
          {prompt, {position}, row++, position, 0, &mine.lists[1 + k]});
    }
  }
}

int64_t AblationGroup::LastOf(const AblationFindings::Place& place) const {
  if (!many_losses()) return place.read;
  const int64_t tokens = sequence(place.prompt).tokens.size();
  return std::max(place.read, tokens - 2);
}

int64_t AblationGroup::FirstRead(const ChangedBatch& batch, size_t row,
                                 const AblationFindings::Place& place) const {
  return many_losses() ? batch.first[row] : place.read;
}

void AblationGroup::AddAnswers(int64_t prompt, int64_t position,
                               std::vector<int64_t>* answers) const {
  const Sequence& mine = sequence(prompt);
  const size_t next = position + 1;
  answers->push_back(next < mine.tokens.size() ? mine.tokens[next] : -1);
  answers->insert(answers->end(), mine.lists[0].begin(), mine.lists[0].end());
}

// The clean output, the activations, and from them what there is to ablate.
absl::Status AblationGroup::RunClean(ChangedPasses& passes) {
  const std::vector<ChangedCopy> any = {{0, {{&addition_, {0}, {}}}, 0}};
  ASSIGN_OR_RETURN(const model::ForwardResult forward, passes.RunClean(any));
  const auto rows = [&](const HookPoint& point) {
    const at::Tensor& value = forward.captures.at(point);
    std::vector<int64_t> index;
    for (const AblationFindings::Place& place : found_.places) {
      for (int64_t position : place.positions) {
        index.push_back(place.prompt * value.size(1) + position);
      }
    }
    return value.flatten(0, 1).flatten(1).index_select(
        0, Index(index).to(value.device()));
  };
  RETURN_IF_ERROR(ReadClean(forward.captures.at(kFinal)));
  x_ = rows(hook_in_).to(at::kFloat);
  return FindAblations(rows(hook_out_).to(at::kFloat));
}

// finals: [prompts, longest, d_model].
absl::Status AblationGroup::ReadClean(const at::Tensor& finals) {
  // (prompt, position) -> the row that is read.
  std::map<std::pair<int64_t, int64_t>, int64_t> read;
  for (const AblationFindings::Place& place : found_.places) {
    read[{place.prompt, place.read}] = 0;
  }
  if (many_losses()) {
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const int64_t losses = sequence(i).tokens.size() - 1;
      for (int64_t t = 0; t < losses; ++t) read[{i, t}] = 0;
    }
  }
  std::vector<int64_t> index, answers;
  for (auto& [where, row] : read) {
    row = static_cast<int64_t>(index.size());
    index.push_back(where.first * finals.size(1) + where.second);
    AddAnswers(where.first, where.second, &answers);
  }
  const at::Tensor rows =
      finals.flatten(0, 1).index_select(0, Index(index).to(finals.device()));
  ASSIGN_OR_RETURN(
      const Readout all,
      ReadRows(*pass_.model, rows, {Index(answers).view({-1, width_}), 0},
               pass_.poll));
  std::vector<int64_t> of_place;
  for (const AblationFindings::Place& place : found_.places) {
    of_place.push_back(read.at({place.prompt, place.read}));
  }
  found_.clean.logprob = all.logprob.index_select(0, Index(of_place));
  found_.clean.rank = all.rank.index_select(0, Index(of_place));
  if (!many_losses()) return absl::OkStatus();
  const float* logprob = all.logprob.const_data_ptr<float>();
  float* losses = found_.clean_losses.mutable_data_ptr<float>();
  for (const auto& [where, row] : read) {
    const auto [prompt, position] = where;
    if (position + 1 >= static_cast<int64_t>(sequence(prompt).tokens.size())) {
      continue;
    }
    losses[prompt * found_.clean_losses.size(1) + position] =
        -logprob[row * width_];
  }
  return absl::OkStatus();
}

// y: float32 [rows, d_out], the clean values at the output point.
absl::Status AblationGroup::FindAblations(const at::Tensor& y) {
  // Given latents alone, where nothing is reconstructed, are all it takes.
  dictionary::EncodeOptions options;
  std::set<int64_t> asked;
  bool every = options_.mode == AblateMode::kReconstruct;
  for (const AblationFindings::Place& place : found_.places) {
    every |= place.asked->empty();
    asked.insert(place.asked->begin(), place.asked->end());
  }
  if (!every) options.latents.assign(asked.begin(), asked.end());
  ASSIGN_OR_RETURN(const SparseRows active, dictionary_.Encode(x_, options));
  if (options_.mode == AblateMode::kReconstruct) {
    ASSIGN_OR_RETURN(const at::Tensor full, dictionary_.Decode(active, x_));
    from_error_ = full - y;
  }
  for (size_t i = 0; i < found_.places.size(); ++i) AddAblations(active, i);
  return absl::OkStatus();
}

void AblationGroup::AddAblations(const SparseRows& active, size_t index) {
  AblationFindings::Place& place = found_.places[index];
  place.begin = found_.ablations.size();
  if (from_error_.defined()) {
    found_.ablations.push_back(
        {index, -1, 0, found_.entries.size(), found_.entries.size()});
  }
  const int64_t* indptr = active.indptr.const_data_ptr<int64_t>();
  const int32_t* latents = active.indices.const_data_ptr<int32_t>();
  const float* values = active.values.const_data_ptr<float>();
  const std::vector<int64_t>& asked = *place.asked;
  // By latent, then by row.
  std::vector<std::pair<int32_t, AblationFindings::Entry>> here;
  for (size_t p = 0; p < place.positions.size(); ++p) {
    const int64_t row = place.row + static_cast<int64_t>(p);
    for (int64_t k = indptr[row]; k < indptr[row + 1]; ++k) {
      if (values[k] != 0 &&
          (asked.empty() ||
           std::binary_search(asked.begin(), asked.end(), latents[k]))) {
        here.push_back({latents[k], {row, values[k]}});
      }
    }
  }
  if (place.positions.size() > 1) {
    std::stable_sort(
        here.begin(), here.end(),
        [](const auto& a, const auto& b) { return a.first < b.first; });
  }
  for (const auto& [latent, entry] : here) {
    if (found_.ablations.size() == place.begin ||
        found_.ablations.back().latent != latent) {
      found_.ablations.push_back({index, latent, entry.activation,
                                  found_.entries.size(),
                                  found_.entries.size()});
    }
    AblationFindings::Ablation& mine = found_.ablations.back();
    mine.activation = std::max(mine.activation, entry.activation);
    found_.entries.push_back(entry);
    mine.end = found_.entries.size();
  }
}

absl::Status AblationGroup::AllocateChanged() {
  const int64_t count = static_cast<int64_t>(found_.ablations.size());
  // What an ablation does not reach, a row of its own included, is as it was.
  std::vector<int64_t> places, prompts;
  for (const AblationFindings::Ablation& ablation : found_.ablations) {
    places.push_back(static_cast<int64_t>(ablation.place));
    prompts.push_back(found_.places[ablation.place].prompt);
  }
  found_.changed.logprob = found_.clean.logprob.index_select(0, Index(places));
  found_.changed.rank = found_.clean.rank.index_select(0, Index(places));
  if (!many_losses()) return absl::OkStatus();
  const int64_t losses = found_.clean_losses.size(1);
  const double bytes = 4.0 * static_cast<double>(count) * losses;
  if (bytes > static_cast<double>(options_.max_record_bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "latents: ", count, " ablations of up to ", losses, " losses hold ",
        bytes, " bytes; accepted: ", options_.max_record_bytes,
        "; ask for fewer prompts, positions or latents at a time"));
  }
  found_.changed_losses = found_.clean_losses.index_select(0, Index(prompts));
  return absl::OkStatus();
}

size_t AblationGroup::ChunkEnd(size_t begin) const {
  int64_t rows = 0;
  size_t end = begin;
  while (end < found_.ablations.size() && (rows < kChunkRows || end == begin)) {
    rows += found_.places[found_.ablations[end].place].positions.size();
    ++end;
  }
  return end;
}

// The ablations as copies whose output point has something added to it: of a
// reconstruction at every position of the place, else where the latent is
// active.
std::vector<ChangedCopy> AblationGroup::CopiesOf(size_t begin,
                                                 size_t end) const {
  std::vector<int64_t> indptr = {0}, rows;
  std::vector<int32_t> latents;
  std::vector<float> values;
  std::vector<ChangedCopy> copies;
  for (size_t i = begin; i < end; ++i) {
    const AblationFindings::Ablation& ablation = found_.ablations[i];
    const AblationFindings::Place& place = found_.places[ablation.place];
    ChangedCopy copy{place.prompt, {{&addition_, {}, {}}}, LastOf(place)};
    size_t entry = ablation.begin;
    for (size_t p = 0; p < place.positions.size(); ++p) {
      const int64_t row = place.row + static_cast<int64_t>(p);
      const bool is_active =
          entry < ablation.end && found_.entries[entry].row == row;
      if (is_active) {
        latents.push_back(ablation.latent);
        values.push_back(-found_.entries[entry++].activation);
      }
      if (!is_active && !from_error_.defined()) continue;
      rows.push_back(row);
      indptr.push_back(static_cast<int64_t>(latents.size()));
      copy.edits[0].positions.push_back(place.positions[p]);
    }
    copies.push_back(std::move(copy));
  }
  const SparseRows changes{Index(indptr), at::tensor(latents, at::kInt),
                           at::tensor(values, at::kFloat), dictionary_.d_sae()};
  const at::Tensor index = Index(rows).to(x_.device());
  at::Tensor added =
      Contribution(dictionary_, changes, x_.index_select(0, index));
  if (from_error_.defined()) {
    added = added + from_error_.index_select(0, index);
  }
  std::vector<int64_t> shape = {static_cast<int64_t>(rows.size())};
  for (int64_t size : model::HookShape(hook_out_, pass_.model->config())) {
    shape.push_back(size);
  }
  added = added.view(shape);
  int64_t next = 0;
  for (ChangedCopy& copy : copies) {
    RowEdit& edit = copy.edits[0];
    const int64_t count = static_cast<int64_t>(edit.positions.size());
    edit.source = added.narrow(0, next, count);
    next += count;
  }
  return copies;
}

absl::Status AblationGroup::ReadBatch(const ChangedBatch& batch, size_t begin) {
  const at::Tensor& finals = batch.forward.captures.at(kFinal);
  std::vector<int64_t> index, answers;
  for (size_t row = 0; row < batch.copies.size(); ++row) {
    const auto& ablation = found_.ablations[begin + batch.copies[row]];
    const AblationFindings::Place& place = found_.places[ablation.place];
    for (int64_t t = FirstRead(batch, row, place); t <= LastOf(place); ++t) {
      index.push_back(static_cast<int64_t>(row) * finals.size(1) + t -
                      batch.first[row]);
      AddAnswers(place.prompt, t, &answers);
    }
  }
  ASSIGN_OR_RETURN(
      const Readout all,
      ReadRows(*pass_.model,
               finals.flatten(0, 1).index_select(
                   0, Index(index).to(finals.device())),
               {Index(answers).view({-1, width_}), 0}, pass_.poll));
  const float* logprob = all.logprob.const_data_ptr<float>();
  const int32_t* rank = all.rank.const_data_ptr<int32_t>();
  int64_t next = 0;
  for (size_t row = 0; row < batch.copies.size(); ++row) {
    const int64_t which = static_cast<int64_t>(begin + batch.copies[row]);
    const AblationFindings::Place& place =
        found_.places[found_.ablations[which].place];
    const int64_t last = LastOf(place);
    const int64_t first = FirstRead(batch, row, place);
    if (many_losses()) {
      const int64_t width = found_.changed_losses.size(1);
      float* losses =
          found_.changed_losses.mutable_data_ptr<float>() + which * width;
      const int64_t tokens = sequence(place.prompt).tokens.size();
      for (int64_t t = first; t <= last && t + 1 < tokens; ++t) {
        losses[t] = -logprob[(next + t - first) * width_];
      }
    }
    const int64_t read = next + place.read - first;
    std::copy_n(
        logprob + read * width_, width_,
        found_.changed.logprob.mutable_data_ptr<float>() + which * width_);
    std::copy_n(
        rank + read * width_, width_,
        found_.changed.rank.mutable_data_ptr<int32_t>() + which * width_);
    next += last + 1 - first;
  }
  return absl::OkStatus();
}

}  // namespace cupola::analysis
