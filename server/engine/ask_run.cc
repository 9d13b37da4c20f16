#include "server/engine/ask_run.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/run_group.h"
#include "server/engine/place_interventions.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using analysis::PlacedIntervention;
using analysis::RunOptions;

std::string FieldOf(const RunRequest& request, size_t set, size_t i) {
  return request.sets.size() == 1 ? StrCat("interventions[", i, "]")
                                  : StrCat("interventions[", set, "][", i, "]");
}

absl::Status MakeSets(const RunRequest& request, model::Processing processing,
                      const Sources& sources, NamedDictionaries* dictionaries,
                      RunOptions* options) {
  for (size_t s = 0; s < request.sets.size(); ++s) {
    analysis::InterventionSet& set = options->sets.emplace_back();
    for (size_t i = 0; i < request.sets[s].size(); ++i) {
      ASSIGN_OR_RETURN(
          analysis::Intervention intervention,
          MakeIntervention(request.sets[s][i], FieldOf(request, s, i),
                           processing, sources, dictionaries));
      set.push_back(std::move(intervention));
    }
  }
  return absl::OkStatus();
}

absl::Status MakeReaders(const RunRequest& request, const Sources& sources,
                         NamedDictionaries* dictionaries, RunOptions* options,
                         Question* question) {
  for (size_t i = 0; i < request.dictionaries.size(); ++i) {
    ASSIGN_OR_RETURN(const int index,
                     dictionaries->Index(request.dictionaries[i],
                                         StrCat("dictionaries[", i, "]")));
    options->readers.push_back({index, HooksOf(dictionaries->manifest(index),
                                               dictionaries->half(index))
                                           .first});
    question->columns.push_back(dictionaries->manifest(index).d_sae);
  }
  for (size_t i = 0; i < request.hooks.size(); ++i) {
    const auto hook =
        model::ParseHookPoint(request.hooks[i], sources.model->config());
    if (!hook.ok()) return InField(StrCat("hooks[", i, "]"), hook.status());
    options->hooks.push_back(*hook);
    question->labels.push_back(model::HookName(*hook));
    question->shapes.push_back(
        model::HookShape(*hook, sources.model->config()));
  }
  return absl::OkStatus();
}

// Moves what belongs to the prompts into their sequences; see
// analysis::RunAnalysis.
absl::Status AddLists(const RunRequest& request, const RunOptions& options,
                      const Sources& sources, const Limits& limits,
                      const std::vector<std::vector<int64_t>>& answers,
                      Question* question) {
  const auto& token_ids = question->provenance.token_ids;
  std::vector<std::vector<std::vector<int64_t>>> lists;
  double bytes = 0;
  for (const std::vector<int64_t>& mine : answers) lists.push_back({mine});
  for (size_t s = 0; s < options.sets.size(); ++s) {
    std::vector<std::vector<PlacedIntervention>> placed(token_ids.size());
    std::vector<std::string> fields;
    for (size_t i = 0; i < options.sets[s].size(); ++i) {
      fields.push_back(FieldOf(request, s, i));
      ASSIGN_OR_RETURN(
          std::vector<PlacedIntervention> mine,
          PlaceIntervention(request.sets[s][i], fields.back(),
                            options.sets[s][i], token_ids, sources, limits));
      for (size_t p = 0; p < mine.size(); ++p) {
        const size_t before = lists[p].size();
        analysis::AddPlaced(mine[p], token_ids[p].size(), &lists[p]);
        for (size_t k = before; k < lists[p].size(); ++k) {
          bytes += sizeof(lists[p][k]) + sizeof(int64_t) * lists[p][k].size();
        }
        placed[p].push_back(std::move(mine[p]));
      }
      if (bytes > static_cast<double>(limits.max_answer_bytes)) {
        return absl::ResourceExhaustedError(
            StrCat(fields.back(), ".positions: the sets so far, ", s + 1,
                   " of ", options.sets.size(), ", name positions of ", bytes,
                   " bytes; accepted: ", limits.max_answer_bytes,
                   " bytes in one request"));
      }
    }
    for (const auto& mine : placed) {
      RETURN_IF_ERROR(analysis::CheckAgreement(mine, fields));
    }
  }
  for (size_t p = 0; p < lists.size(); ++p) {
    auto sequence =
        std::make_shared<analysis::Sequence>(*question->sequences[p]);
    sequence->lists = std::move(lists[p]);
    question->sequences[p] = std::move(sequence);
  }
  return absl::OkStatus();
}

// Without features, whose number is not known before.
double AnswerBytes(const RunOptions& options, const model::ModelConfig& config,
                   const Question& question) {
  double bytes = 0;
  for (const auto& sequence : question.sequences) {
    double values =
        options.output ? 3 + 2 * options.answers + 2 * options.top : 0;
    if (options.distribution) values += config.d_vocab;
    for (const model::HookPoint& hook : options.hooks) {
      double size = 1;
      for (int64_t part : model::HookShape(hook, config)) {
        size *= part < 0 ? sequence->tokens.size() : part;
      }
      values += size;
    }
    // Also what reads nothing has a record.
    bytes += static_cast<double>(analysis::kBytesPerVariant) +
             4 * values * sequence->positions.size();
  }
  return bytes * (options.sets.size() + 1);
}

absl::Status SetBoosts(const RunRequest& request,
                       const model::ModelConfig& config, Question* question,
                       RunOptions* options) {
  if (!request.boosts.has_value()) return absl::OkStatus();
  const analysis::BoostOptions& boosts = *request.boosts;
  if (boosts.top < 1 || boosts.top > config.d_vocab) {
    return InvalidArgumentError(StrCat("boosts.top is ", boosts.top,
                                       "; accepted: 1 to ", config.d_vocab));
  }
  if (std::isnan(boosts.min_logprob)) {
    return InvalidArgumentError("boosts.min_logprob is no number");
  }
  for (int64_t token : boosts.tokens) {
    if (token >= config.d_vocab) {
      return InvalidArgumentError(StrCat("boosts.tokens: token id ", token,
                                         " is outside the vocabulary, 0 to ",
                                         config.d_vocab - 1));
    }
  }
  for (size_t i = 0; i < question->sequences.size(); ++i) {
    const size_t positions = question->sequences[i]->positions.size();
    if (positions == 1) continue;
    return InvalidArgumentError(
        StrCat("positions: ", positions, " for prompt ", i,
               "; accepted with boosts: one per prompt"));
  }
  options->output = options->distribution = true;
  question->boosts = boosts;
  return absl::OkStatus();
}

// One array of each variant of each record: [variants, rows of all records,
// ...]. Variants are `stride` arrays apart.
Array Stack(const Records& records, size_t which, size_t stride) {
  Array all = (*records.front())[which];
  const int64_t variants =
      static_cast<int64_t>(records.front()->size() / stride);
  int64_t rows = 0;
  for (const auto& record : records) rows += (*record)[which].shape.front();
  all.shape.front() = rows;
  all.shape.insert(all.shape.begin(), variants);
  all.bytes.clear();
  for (int64_t variant = 0; variant < variants; ++variant) {
    for (const auto& record : records) {
      all.bytes += (*record)[which + variant * stride].bytes;
    }
  }
  return all;
}

// The same of three arrays that are CSR rows.
SparseArrays StackRows(const Records& records, size_t which, size_t stride,
                       int64_t columns) {
  std::vector<const Array*> blocks;
  for (; which < records.front()->size(); which += stride) {
    for (const auto& record : records) blocks.push_back(&(*record)[which]);
  }
  return ConcatenateRows(blocks, columns);
}

}  // namespace

absl::StatusOr<std::vector<std::vector<int64_t>>> CheckAnswers(
    const std::vector<std::vector<uint32_t>>& answers, size_t prompts,
    const model::ModelConfig& config) {
  std::vector<std::vector<int64_t>> checked(prompts);
  if (answers.empty()) return checked;
  if (answers.size() != prompts) {
    return InvalidArgumentError(StrCat("answers has ", answers.size(),
                                       " lists; accepted: ", prompts,
                                       ", one per prompt, or none"));
  }
  for (size_t i = 0; i < prompts; ++i) {
    if (answers[i].empty() || answers[i].size() != answers[0].size()) {
      return InvalidArgumentError(StrCat(
          "answers[", i, "] has ", answers[i].size(), " tokens and answers[0] ",
          answers[0].size(), "; accepted: as many for every prompt"));
    }
    for (uint32_t token : answers[i]) {
      if (token >= config.d_vocab) {
        return InvalidArgumentError(StrCat("answers[", i, "]: token id ", token,
                                           " is outside the vocabulary, 0 to ",
                                           config.d_vocab - 1));
      }
      checked[i].push_back(token);
    }
  }
  return checked;
}

absl::StatusOr<Question> AskRun(const RunRequest& request,
                                const Sources& sources, const Limits& limits) {
  const model::ModelConfig& config = sources.model->config();
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kRun));
  RETURN_IF_ERROR(AddPrompts(request.prompts, request.positions,
                             request.processing, sources, limits, question));
  ASSIGN_OR_RETURN(
      auto answers,
      CheckAnswers(request.answers, question.sequences.size(), config));
  RunOptions options;
  options.answers = static_cast<int64_t>(answers.front().size());
  options.output = request.output || request.mean_loss || options.answers > 0 ||
                   request.top_logits > 0;
  if (request.top_logits > config.d_vocab) {
    return InvalidArgumentError(StrCat("top_logits is ", request.top_logits,
                                       "; accepted: at most ", config.d_vocab));
  }
  options.top = request.top_logits;
  options.mean_loss = request.mean_loss;
  NamedDictionaries dictionaries(sources);
  RETURN_IF_ERROR(MakeSets(request, question.provenance.processing, sources,
                           &dictionaries, &options));
  RETURN_IF_ERROR(
      MakeReaders(request, sources, &dictionaries, &options, &question));
  RETURN_IF_ERROR(SetBoosts(request, config, &question, &options));
  RETURN_IF_ERROR(NoteAnswerBytes(AnswerBytes(options, config, question),
                                  limits, question));
  question.work = {.passes = 1.0 + options.sets.size(),
                   .flops_per_row = options.output
                                        ? 2.0 * (1.0 + options.sets.size()) *
                                              config.d_model * config.d_vocab
                                        : 0.0};
  options.max_record_bytes = limits.max_answer_bytes;
  RETURN_IF_ERROR(
      AddLists(request, options, sources, limits, answers, &question));
  question.others = dictionaries.uses();
  question.other_digests = dictionaries.FileDigests();
  question.identity =
      analysis::RunAnalysis::Identity(options, dictionaries.Digests());
  question.bind = [options](const BoundDictionaries& bound) {
    return std::make_shared<analysis::RunAnalysis>(options, bound.others);
  };
  return question;
}

RunAnswer AnswerRun(const Question& question, Answered answered) {
  RunAnswer answer;
  const Records& records = answered.records;
  const size_t readers = question.columns.size();
  const size_t first_reader =
      analysis::kReadoutArrays + (question.boosts.has_value() ? 1 : 0);
  const size_t first_hook = first_reader + 3 * readers;
  const size_t stride = first_hook + question.labels.size();
  answer.variants = static_cast<int64_t>(records.front()->size() / stride);
  size_t next = 0;
  for (Array* array : {&answer.loss, &answer.logprob, &answer.rank,
                       &answer.top_tokens, &answer.top_logits}) {
    *array = Stack(records, next++, stride);
  }
  if (question.boosts.has_value()) {
    answer.boosts = analysis::TabulateBoosts(records, analysis::kReadoutArrays,
                                             stride, *question.boosts);
  }
  for (size_t i = 0; i < readers; ++i) {
    answer.features.push_back(
        StackRows(records, first_reader + 3 * i, stride, question.columns[i]));
  }
  for (size_t i = 0; i < question.labels.size(); ++i) {
    // Prompts' shapes may differ: numbers one after another.
    Array values = Stack(records, first_hook + i, stride);
    values.shape = {static_cast<int64_t>(values.bytes.size() / sizeof(float))};
    answer.activations.push_back(
        {question.labels[i], question.shapes[i], std::move(values)});
  }
  answer.dictionary_digests = question.other_digests;
  LabelRows(question, answer.prompt, answer.position);
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
