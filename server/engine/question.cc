#include "server/engine/question.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/analysis/rows.h"
#include "server/engine/prompt_resolution.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using storage::DType;

int64_t InputWidth(const dictionary::Manifest& manifest,
                   dictionary::Half half) {
  return half == dictionary::Half::kIn ? manifest.d_in : manifest.d_out;
}

}  // namespace

absl::StatusOr<Question> BeginQuestion(const Sources& sources,
                                       analysis::Operation operation) {
  Question question;
  question.operation = operation;
  question.entries = sources.entries;
  question.model = sources.model_name;
  question.device = sources.device;
  question.source = sources.model;
  question.provenance.model = sources.model_name;
  question.provenance.model_digest = sources.model->digest();
  question.provenance.dtype = sources.dtype;
  question.pass_flops = PassFlops(sources.model->config());
  if (sources.dictionary != nullptr) {
    ASSIGN_OR_RETURN(
        const DictionaryUse use,
        UseOf(sources.dictionary_name, sources.dictionary->manifest()));
    question.dictionary = use.entry;
    question.half = use.half;
    question.d_sae = sources.dictionary->manifest().d_sae;
    question.provenance.dictionary = sources.dictionary_name;
    question.provenance.dictionary_digest = sources.dictionary->digest();
  }
  return question;
}

absl::StatusOr<DictionaryUse> UseOf(const std::string& name,
                                    const dictionary::Manifest& manifest) {
  const DictionaryName parsed = ParseDictionaryName(name);
  if (parsed.names_half && manifest.kind != dictionary::Kind::kPair) {
    return absl::NotFoundError(absl::StrCat(
        "\"", name, "\": this dictionary is no pair and has no halves"));
  }
  return DictionaryUse{parsed.entry, parsed.half};
}

absl::Status AddPrompts(const Prompts& prompts, const Positions& positions,
                        const std::optional<model::Processing>& processing,
                        const Sources& sources, const Limits& limits,
                        Question& question) {
  std::optional<bool> declared_bos;
  model::Processing declared = model::Processing::kRaw;
  if (sources.dictionary != nullptr) {
    const dictionary::Manifest& manifest = sources.dictionary->manifest();
    if (manifest.declares_prepend_bos) declared_bos = manifest.prepend_bos;
    declared = manifest.processing;
  }
  ASSIGN_OR_RETURN(
      ResolvedPrompts resolved,
      ResolvePrompts(prompts, declared_bos, *sources.model, limits.max_tokens));
  ASSIGN_OR_RETURN(std::vector<std::vector<int64_t>> rows,
                   ResolvePositions(positions, resolved.token_ids));
  for (size_t i = 0; i < rows.size(); ++i) {
    auto sequence = std::make_shared<analysis::Sequence>();
    sequence->tokens = resolved.token_ids[i];
    sequence->positions = std::move(rows[i]);
    question.sequences.push_back(std::move(sequence));
  }
  question.provenance.token_ids = std::move(resolved.token_ids);
  question.provenance.processing = processing.value_or(declared);
  return absl::OkStatus();
}

absl::Status AddInputs(const Array& inputs, const Positions& positions,
                       const std::optional<model::Processing>& processing,
                       const Sources& sources, const Limits& limits,
                       Question& question) {
  const int64_t d_in =
      InputWidth(sources.dictionary->manifest(), question.half);
  if (inputs.dtype != DType::kFloat32 || inputs.shape.size() != 2 ||
      inputs.shape[1] != d_in || inputs.shape[0] < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "inputs must be FLOAT32 [n >= 1, ", d_in, "]; its shape is [",
        absl::StrJoin(inputs.shape, ", "), "]"));
  }
  if (positions.kind != Positions::Kind::kAll || processing.has_value()) {
    return absl::InvalidArgumentError(
        "positions and processing do not apply to inputs");
  }
  if (inputs.shape[0] > limits.max_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("inputs holds ", inputs.shape[0],
                     " rows; one request takes ", limits.max_tokens));
  }
  const int64_t values = inputs.shape[0] * inputs.shape[1];
  for (int64_t i = 0; i < values; ++i) {
    float value;
    std::memcpy(&value, inputs.bytes.data() + i * sizeof(float), sizeof(float));
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("inputs[", i / d_in, ", ", i % d_in, "] is ", value,
                       ": inputs must be finite"));
    }
  }
  auto sequence = std::make_shared<analysis::Sequence>();
  sequence->inputs = inputs;
  question.sequences.push_back(std::move(sequence));
  question.needs_model = false;
  return absl::OkStatus();
}

void AddEmptySequence(int64_t rows, Question& question) {
  auto sequence = std::make_shared<analysis::Sequence>();
  sequence->positions.resize(rows);
  std::iota(sequence->positions.begin(), sequence->positions.end(), 0);
  question.sequences.push_back(std::move(sequence));
}

absl::Status CheckAnswerBytes(double bytes, const Limits& limits) {
  if (bytes <= static_cast<double>(limits.max_answer_bytes)) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("the answer would hold ", static_cast<int64_t>(bytes),
                   " bytes; the server sends at most ", limits.max_answer_bytes,
                   ": ask for fewer prompts, positions or hooks"));
}

absl::Status NoteAnswerBytes(double bytes, const Limits& limits,
                             Question& question) {
  question.answer_bytes = bytes;
  return CheckAnswerBytes(bytes, limits);
}

int64_t MostActive(const dictionary::Manifest& manifest, bool* guessed) {
  const bool bounded = manifest.architecture == dictionary::Architecture::kTopK;
  *guessed = *guessed || !bounded;
  return std::min(manifest.d_sae, bounded ? manifest.k : kManyActive);
}

double ShareOfPass(const std::vector<model::HookPoint>& hooks,
                   const model::ModelConfig& config) {
  double share = 0;
  for (const model::HookPoint& hook : hooks) {
    const bool behind =
        model::ForwardOrder(hook) >
        model::ForwardOrder({model::HookKind::kResidPost, config.n_layers - 1});
    const double layers = hook.layer >= 0 ? hook.layer + 1.0
                          : behind        ? config.n_layers
                                          : 0.0;
    share = std::max(share, layers / config.n_layers);
  }
  return share;
}

double FlopsOf(const Question& question, const analysis::Sequence& sequence) {
  const double tokens = static_cast<double>(sequence.tokens.size());
  const double rows = static_cast<double>(analysis::RowCount(sequence));
  return question.pass_flops * question.work.passes * tokens +
         question.work.flops_per_row * rows + question.work.flops;
}

std::pair<model::HookPoint, model::HookPoint> HooksOf(const Question& question,
                                                      const Sources& sources) {
  return HooksOf(sources.dictionary->manifest(), question.half);
}

std::pair<model::HookPoint, model::HookPoint> HooksOf(
    const dictionary::Manifest& manifest, dictionary::Half half) {
  if (manifest.kind != dictionary::Kind::kPair) {
    return {manifest.hook_in, manifest.hook_out};
  }
  const model::HookPoint hook =
      half == dictionary::Half::kIn ? manifest.hook_in : manifest.hook_out;
  return {hook, hook};
}

int64_t RowCount(const Question& question) {
  int64_t rows = 0;
  for (const auto& sequence : question.sequences)
    rows += analysis::RowCount(*sequence);
  return rows;
}

Array Int32Array(const std::vector<int32_t>& values) {
  Array array{DType::kInt32, {static_cast<int64_t>(values.size())}, {}};
  array.bytes.assign(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(int32_t));
  return array;
}

void LabelRows(const Question& question, Array& prompt, Array& position) {
  std::vector<int32_t> prompts, positions;
  for (size_t i = 0; i < question.sequences.size(); ++i) {
    const analysis::Sequence& sequence = *question.sequences[i];
    for (int64_t row = 0; row < analysis::RowCount(sequence); ++row) {
      prompts.push_back(i);
      positions.push_back(sequence.has_inputs() ? row
                                                : sequence.positions[row]);
    }
  }
  prompt = Int32Array(prompts);
  position = Int32Array(positions);
}

absl::Status CheckAnswer(const Question& question, const Records& records) {
  if (question.check_answer == nullptr || question.max_record_bytes == 0) {
    return absl::OkStatus();
  }
  return question.check_answer(records, question.max_record_bytes);
}

Array Concatenate(const Records& records, size_t which) {
  size_t bytes = 0;
  for (const auto& record : records) bytes += (*record)[which].bytes.size();
  const Array& first = (*records.front())[which];
  Array all = {first.dtype, first.shape, {}};
  all.shape[0] = 0;
  all.bytes.reserve(bytes);
  for (const auto& record : records) {
    const Array& more = (*record)[which];
    all.shape[0] += more.shape[0];
    all.bytes += more.bytes;
  }
  return all;
}

SparseArrays ConcatenateRows(const std::vector<const Array*>& blocks,
                             int64_t columns) {
  // The row pointers move by what came before.
  std::vector<int64_t> indptr = {0};
  SparseArrays rows;
  rows.indices = {DType::kUInt32, {0}, {}};
  rows.values = {DType::kFloat32, {0}, {}};
  for (const Array* block : blocks) {
    const Array& mine = block[0];
    const int64_t before = indptr.back();
    for (int64_t r = 1; r < mine.shape[0]; ++r) {
      int64_t end;
      std::memcpy(&end, mine.bytes.data() + r * sizeof(end), sizeof(end));
      indptr.push_back(before + end);
    }
    rows.indices.bytes += block[1].bytes;
    rows.values.bytes += block[2].bytes;
  }
  rows.indices.shape = rows.values.shape = {indptr.back()};
  rows.indptr = {DType::kInt64, {static_cast<int64_t>(indptr.size())}, {}};
  rows.indptr.bytes.assign(reinterpret_cast<const char*>(indptr.data()),
                           indptr.size() * sizeof(int64_t));
  rows.columns = columns;
  return rows;
}

Provenance ProvenanceOf(const Question& question, const Answered& answered) {
  Provenance provenance = question.provenance;
  provenance.from_cache = answered.from_cache;
  provenance.seconds = answered.seconds;
  provenance.estimate = answered.estimate;
  return provenance;
}

}  // namespace cupola::engine
