#include "server/analysis/generation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/placed_lists.h"
#include "server/analysis/readout.h"
#include "server/model/status_macros.h"

namespace cupola::analysis {
namespace {

using model::HookKind;
using model::HookPoint;
using storage::Array;
using storage::DType;

constexpr HookPoint kFinal{HookKind::kFinalOut, -1};
// Texts that grow side by side: enough for the products to run at full speed.
constexpr int64_t kMaxRows = 64;
// Padded tokens of prompts that begin together.
constexpr int64_t kPromptTokens = 2048;
// What the interventions of all prompts may hold of the runs they patch from.
constexpr int64_t kMaxSourceBytes = int64_t{1} << 30;

bool EditsLogits(const GenerateOptions& options) {
  return std::any_of(options.interventions.begin(), options.interventions.end(),
                     [](const Intervention& intervention) {
                       return intervention.hook.kind == HookKind::kLogits;
                     });
}

template <typename T>
Array ToRows(DType dtype, const std::vector<T>& values,
             std::vector<int64_t> shape) {
  static_assert(sizeof(T) == 4);
  Array array{dtype, std::move(shape), {}};
  array.bytes.assign(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(T));
  return array;
}

}  // namespace

Generation::Generation(const GenerateOptions& options,
                       const Dictionaries& dictionaries, const Pass& pass,
                       const std::vector<Placed>& sequences)
    : options_(options),
      dictionaries_(dictionaries),
      pass_(pass),
      sequences_(sequences),
      edits_logits_(EditsLogits(options)),
      given_up_(sequences.size()) {}

absl::StatusOr<std::unique_ptr<Generation>> Generation::Create(
    const GenerateOptions& options, const Dictionaries& dictionaries,
    const Pass& pass, const std::vector<Placed>& sequences) {
  std::unique_ptr<Generation> generation(
      new Generation(options, dictionaries, pass, sequences));
  for (size_t i = 0; i < sequences.size(); ++i) {
    generation->keys_.push_back(
        SamplingKey(options.seed, sequences[i].sequence->tokens));
    for (int64_t sample = 0; sample < options.samples; ++sample) {
      Text& text = generation->texts_.emplace_back();
      text.sequence = i;
      text.sample = sample;
    }
  }
  generation->ended_.resize(generation->texts_.size());
  RETURN_IF_ERROR(generation->MakeRoom());
  RETURN_IF_ERROR(generation->PlaceEdits());
  return generation;
}

absl::Status Generation::MakeRoom() {
  const model::Model& model = *pass_.model;
  size_t longest = 0;
  for (const Placed& placed : sequences_) {
    longest = std::max(longest, placed.sequence->tokens.size());
  }
  // The last token is told, and not taken in.
  const int64_t capacity =
      static_cast<int64_t>(longest) + options_.max_new_tokens - 1;
  const int64_t bytes = model::GrowingState::RowBytes(
      model.config(), model.options().dtype, capacity);
  if (bytes > kMaxRowBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("max_new_tokens: a text of ", capacity, " tokens keeps ",
                     bytes, " bytes; accepted: ", kMaxRowBytes));
  }
  const int64_t rows = std::min({static_cast<int64_t>(texts_.size()), kMaxRows,
                                 std::max<int64_t>(1, kGrowingBytes / bytes)});
  state_ = std::make_unique<model::GrowingState>(
      model.config(), model.options().dtype, model.options().device, rows,
      capacity);
  return absl::OkStatus();
}

absl::Status Generation::PlaceEdits() {
  PatchSources sources(pass_);
  int64_t held = 0;
  for (const Placed& placed : sequences_) {
    size_t next = 0;
    std::vector<RowEdit>& edits = prompt_edits_.emplace_back();
    for (PlacedIntervention& mine :
         PlacedOf(options_.interventions, *placed.sequence, &next)) {
      RowEdit edit{mine.intervention,
                   std::move(mine.positions),
                   {},
                   std::move(mine.value_rows)};
      if (edit.intervention->change == Change::kPatch) {
        ASSIGN_OR_RETURN(edit.source, sources.Of(mine));
        held += static_cast<int64_t>(edit.source.nbytes());
      }
      edits.push_back(std::move(edit));
    }
    sources.Clear();
    if (held > kMaxSourceBytes) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "interventions: what is patched from sources holds more than ", held,
          " bytes; accepted: ", kMaxSourceBytes,
          ": ask for fewer prompts or positions"));
    }
  }
  return absl::OkStatus();
}

std::vector<RowEdit> Generation::EditsOf(size_t sequence, int64_t first,
                                         int64_t last) const {
  const int64_t length = prompt(sequence).size();
  if (first < length) return EditsWithin(prompt_edits_[sequence], first, last);
  std::vector<RowEdit> edits;
  for (size_t i = 0; i < options_.interventions.size(); ++i) {
    const GeneratedScope& scope = options_.generated[i];
    if (scope.everywhere ||
        std::binary_search(scope.positions.begin(), scope.positions.end(),
                           first - length)) {
      edits.push_back({&options_.interventions[i], {0}, {}});
    }
  }
  return edits;
}

absl::StatusOr<model::ForwardResult> Generation::Forward(
    model::ForwardRequest request,
    const std::vector<std::vector<RowEdit>>& edits) const {
  Edits changes(dictionaries_, edits);
  request.edits = changes.points();
  request.edit = [&](const HookPoint& point, at::Tensor* value) {
    return changes.Apply(point, value);
  };
  request.poll = pass_.poll;
  return pass_.model->Forward(request);
}

absl::StatusOr<bool> Generation::Step() {
  step_tokens_ = 0;
  const std::vector<Beginning> beginnings = NextBeginnings();
  if (!beginnings.empty()) {
    RETURN_IF_ERROR(Begin(beginnings));
  } else if (!rows_.empty()) {
    RETURN_IF_ERROR(Grow());
  }
  DropEnded();
  return rows_.empty() && next_text_ == texts_.size();
}

std::vector<Generation::Beginning> Generation::NextBeginnings() const {
  std::vector<Beginning> beginnings;
  const bool square =
      std::any_of(options_.interventions.begin(), options_.interventions.end(),
                  [](const Intervention& mine) { return IsSquare(mine.hook); });
  int64_t free = state_->max_rows() - state_->rows();
  int64_t longest = 0;
  for (size_t text = next_text_; text < texts_.size() && free > 0;) {
    const size_t sequence = texts_[text].sequence;
    Beginning mine{sequence, text, 0, 0};
    mine.length =
        static_cast<int64_t>(prompt(sequence).size()) - (edits_logits_ ? 1 : 0);
    // A change of scores can unmask padding: then there is none.
    if (!beginnings.empty() && square && mine.length != longest) break;
    longest = std::max(longest, mine.length);
    if (!beginnings.empty() &&
        longest * static_cast<int64_t>(beginnings.size() + 1) > kPromptTokens) {
      break;
    }
    mine.samples = std::min(free, options_.samples - texts_[text].sample);
    free -= mine.samples;
    text += mine.samples;
    beginnings.push_back(mine);
  }
  return beginnings;
}

absl::Status Generation::Begin(const std::vector<Beginning>& beginnings) {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::vector<RowEdit>> edits;
  for (const Beginning& mine : beginnings) {
    if (mine.length == 0) continue;
    const std::vector<int32_t>& tokens = prompt(mine.sequence);
    prompts.emplace_back(tokens.begin(), tokens.begin() + mine.length);
    edits.push_back(EditsOf(mine.sequence, 0, mine.length - 1));
    step_tokens_ += mine.length;
  }
  model::ForwardResult forward;
  forward.kept = std::make_shared<model::KeptState>();
  if (!prompts.empty()) {
    std::vector<const std::vector<int32_t>*> rows;
    for (const std::vector<int32_t>& tokens : prompts) rows.push_back(&tokens);
    model::ForwardRequest request;
    request.batch = model::TokenBatch::Pack(rows);
    request.captures = {kFinal};
    request.keep = {0, {}};
    ASSIGN_OR_RETURN(forward, Forward(std::move(request), edits));
  }
  std::vector<size_t> texts;
  std::vector<at::Tensor> finals;
  int64_t row = 0;  // of the pass
  for (const Beginning& mine : beginnings) {
    for (int64_t i = 0; i < mine.samples; ++i) {
      const size_t text = mine.text + i;
      state_->Add(*forward.kept, row, mine.length);
      rows_.push_back(text);
      texts_[text].next = prompt(mine.sequence).back();
      if (edits_logits_) continue;
      texts.push_back(text);
      finals.push_back(forward.captures.at(kFinal)[row][mine.length - 1]);
    }
    next_text_ = mine.text + mine.samples;
    row += mine.length > 0 ? 1 : 0;
  }
  if (texts.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const at::Tensor logits,
                   pass_.model->Unembed(at::stack(finals)));
  return Choose(texts, logits);
}

absl::Status Generation::Grow() {
  const std::vector<int64_t>& lengths = state_->lengths();
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<RowEdit>> edits;
  for (size_t row = 0; row < rows_.size(); ++row) {
    const Text& text = texts_[rows_[row]];
    tokens.push_back({text.next});
    edits.push_back(EditsOf(text.sequence, lengths[row], lengths[row]));
  }
  std::vector<const std::vector<int32_t>*> rows;
  for (const std::vector<int32_t>& token : tokens) rows.push_back(&token);
  model::ForwardRequest request;
  request.batch = model::TokenBatch::Pack(rows);
  request.growing = state_.get();
  request.logits = true;
  step_tokens_ = static_cast<int64_t>(rows_.size());
  ASSIGN_OR_RETURN(const model::ForwardResult forward,
                   Forward(std::move(request), edits));
  return Choose(rows_, forward.logits.select(1, 0));
}

absl::Status Generation::Choose(const std::vector<size_t>& texts,
                                const at::Tensor& logits) {
  const at::Tensor wide = logits.to(at::kCPU, at::kFloat).contiguous();
  const int64_t vocabulary = wide.size(1);
  const float* values = wide.const_data_ptr<float>();
  std::vector<int64_t> chosen;
  for (size_t i = 0; i < texts.size(); ++i) {
    const Text& text = texts_[texts[i]];
    chosen.push_back(ChooseToken(
        values + i * vocabulary, vocabulary, options_.sampling,
        UniformAt(keys_[text.sequence], text.sample, text.tokens.size())));
  }
  const Readout readout = ReadLogits(
      wide, {at::tensor(chosen, at::kLong).unsqueeze(1), options_.top});
  const float* logprobs = readout.logprob.const_data_ptr<float>();
  const int32_t* top_tokens = readout.top_tokens.const_data_ptr<int32_t>();
  // log softmax = logit - what the chosen token's logit loses by it.
  const at::Tensor top_logprobs = readout.top_logits.clone();
  float* tops = top_logprobs.data_ptr<float>();
  for (size_t i = 0; i < texts.size(); ++i) {
    if (chosen[i] < 0) {
      End(texts[i], Finish::kNoNumbers);
      continue;
    }
    const float loss = values[i * vocabulary + chosen[i]] - logprobs[i];
    float* const mine = tops + i * options_.top;
    for (int64_t j = 0; j < options_.top; ++j) mine[j] -= loss;
    Take(texts[i], static_cast<int32_t>(chosen[i]), logprobs[i],
         top_tokens + i * options_.top, mine);
  }
  return absl::OkStatus();
}

void Generation::Take(size_t which, int32_t token, float logprob,
                      const int32_t* top_tokens, const float* top_logprobs) {
  Text& text = texts_[which];
  text.next = token;
  text.tokens.push_back(token);
  text.logprobs.push_back(logprob);
  text.top_tokens.insert(text.top_tokens.end(), top_tokens,
                         top_tokens + options_.top);
  text.top_logprobs.insert(text.top_logprobs.end(), top_logprobs,
                           top_logprobs + options_.top);
  if (const TokenSink* sink = sequences_[text.sequence].sink; sink != nullptr) {
    const GeneratedToken told{text.sample,
                              token,
                              logprob,
                              {top_tokens, top_tokens + options_.top},
                              {top_logprobs, top_logprobs + options_.top}};
    if (!(*sink)(told).ok()) given_up_[text.sequence] = true;
  }
  if (std::binary_search(options_.stop.begin(), options_.stop.end(), token)) {
    End(which, Finish::kStop);
  } else if (static_cast<int64_t>(text.tokens.size()) ==
             options_.max_new_tokens) {
    End(which, Finish::kLength);
  }
}

void Generation::End(size_t text, Finish finish) {
  texts_[text].finish = finish;
  ended_[text] = true;
}

void Generation::DropEnded() {
  for (size_t row = 0; row < rows_.size();) {
    const size_t text = rows_[row];
    if (!ended_[text] && !given_up_[texts_[text].sequence]) {
      ++row;
      continue;
    }
    state_->Remove(static_cast<int64_t>(row));
    rows_[row] = rows_.back();
    rows_.pop_back();
  }
  while (next_text_ < texts_.size() && given_up_[texts_[next_text_].sequence]) {
    ++next_text_;
  }
}

absl::StatusOr<std::vector<std::vector<Array>>> Generation::TakeRecords() {
  std::vector<std::vector<Array>> records(sequences_.size());
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (given_up_[i]) continue;
    std::vector<int32_t> lengths, finishes, tokens, top_tokens;
    std::vector<float> logprobs, top_logprobs;
    const auto append = [](const auto& from, auto* to) {
      to->insert(to->end(), from.begin(), from.end());
    };
    for (int64_t sample = 0; sample < options_.samples; ++sample) {
      const Text& text = texts_[i * options_.samples + sample];
      lengths.push_back(static_cast<int32_t>(text.tokens.size()));
      finishes.push_back(static_cast<int32_t>(text.finish));
      append(text.tokens, &tokens);
      append(text.logprobs, &logprobs);
      append(text.top_tokens, &top_tokens);
      append(text.top_logprobs, &top_logprobs);
    }
    const int64_t total = static_cast<int64_t>(tokens.size());
    records[i] = {ToRows(DType::kInt32, lengths, {options_.samples}),
                  ToRows(DType::kInt32, finishes, {options_.samples}),
                  ToRows(DType::kInt32, tokens, {total}),
                  ToRows(DType::kFloat32, logprobs, {total}),
                  ToRows(DType::kInt32, top_tokens, {total, options_.top}),
                  ToRows(DType::kFloat32, top_logprobs, {total, options_.top})};
  }
  return records;
}

}  // namespace cupola::analysis
