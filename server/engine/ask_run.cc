#include "server/engine/ask_run.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/run.h"
#include "server/engine/place_interventions.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using analysis::PlacedIntervention;
using analysis::RunOptions;

// The five arrays of a readout come first in a record's part of a variant.
constexpr size_t kReadoutArrays = 5;

std::string FieldOf(const RunRequest& request, size_t set, size_t i) {
  return request.sets.size() == 1 ? StrCat("interventions[", i, "]")
                                  : StrCat("interventions[", set, "][", i, "]");
}

absl::Status MakeSets(const RunRequest& request, const Sources& sources,
                      NamedDictionaries* dictionaries, RunOptions* options) {
  for (size_t s = 0; s < request.sets.size(); ++s) {
    analysis::InterventionSet& set = options->sets.emplace_back();
    for (size_t i = 0; i < request.sets[s].size(); ++i) {
      ASSIGN_OR_RETURN(
          analysis::Intervention intervention,
          MakeIntervention(request.sets[s][i], FieldOf(request, s, i), sources,
                           dictionaries));
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
        lists[p].push_back(mine[p].positions);
        if (mine[p].intervention->change == analysis::Change::kPatch) {
          lists[p].emplace_back(mine[p].source.begin(), mine[p].source.end());
          lists[p].push_back(mine[p].source_positions);
        }
        placed[p].push_back(std::move(mine[p]));
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
    for (const model::HookPoint& hook : options.hooks) {
      double size = 1;
      for (int64_t part : model::HookShape(hook, config)) {
        size *= part < 0 ? sequence->tokens.size() : part;
      }
      values += size;
    }
    bytes += 4 * values * sequence->positions.size();
  }
  return bytes * (options.sets.size() + 1);
}

// What the sets hold until the answer is made: for each set the values at the
// rows that are read (those that the logits come from, and what the readers
// encode), and each intervention's positions.
absl::Status CheckWorkBytes(const RunOptions& options,
                            const model::ModelConfig& config,
                            const Question& question, const Limits& limits) {
  double width = options.output ? config.d_model : 0;
  for (const analysis::LatentReader& reader : options.readers) {
    double size = 1;
    for (int64_t part : model::HookShape(reader.hook, config)) {
      size *= std::max<int64_t>(part, 1);
    }
    width += size;
  }
  double tokens = 0;
  for (const auto& ids : question.provenance.token_ids) tokens += ids.size();
  double bytes = 0;
  for (const auto& set : options.sets) {
    bytes += 4 * width * RowCount(question) +
             sizeof(int64_t) * tokens * static_cast<double>(set.size());
  }
  if (bytes <= limits.max_answer_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(StrCat(
      "interventions: ", options.sets.size(), " sets on ", RowCount(question),
      " rows hold ", bytes, " bytes at a time; accepted: ",
      limits.max_answer_bytes, "; ask for fewer sets, positions or prompts"));
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
  options.output =
      request.output || options.answers > 0 || request.top_logits > 0;
  if (request.top_logits > config.d_vocab) {
    return InvalidArgumentError(StrCat("top_logits is ", request.top_logits,
                                       "; accepted: at most ", config.d_vocab));
  }
  options.top = request.top_logits;
  NamedDictionaries dictionaries(sources);
  RETURN_IF_ERROR(MakeSets(request, sources, &dictionaries, &options));
  RETURN_IF_ERROR(
      MakeReaders(request, sources, &dictionaries, &options, &question));
  RETURN_IF_ERROR(
      CheckAnswerBytes(AnswerBytes(options, config, question), limits));
  RETURN_IF_ERROR(CheckWorkBytes(options, config, question, limits));
  RETURN_IF_ERROR(
      AddLists(request, options, sources, limits, answers, &question));
  question.others = dictionaries.uses();
  question.identity =
      analysis::RunAnalysis::Identity(options, dictionaries.Digests());
  question.bind = [options](const BoundDictionaries& bound) {
    return std::make_shared<analysis::RunAnalysis>(options, bound.others);
  };
  return question;
}

RunAnswer AnswerRun(const Question& question, Answered answered) {
  RunAnswer answer;
  const size_t readers = question.columns.size();
  const size_t arrays = kReadoutArrays + 3 * readers + question.labels.size();
  answer.variants.resize(answered.records.front()->size() / arrays);
  for (const auto& record : answered.records) {
    size_t next = 0;
    for (auto& variant : answer.variants) {
      RunAnswer::Shown& shown = variant.emplace_back();
      for (Array* array : {&shown.loss, &shown.logprob, &shown.rank,
                           &shown.top_tokens, &shown.top_logits}) {
        *array = (*record)[next++];
      }
      for (int64_t columns : question.columns) {
        shown.features.push_back({(*record)[next], (*record)[next + 1],
                                  (*record)[next + 2], columns});
        next += 3;
      }
      for (size_t h = 0; h < question.labels.size(); ++h) {
        shown.activations.push_back((*record)[next++]);
      }
    }
  }
  answer.hooks = question.labels;
  for (const auto& sequence : question.sequences) {
    answer.positions.push_back(
        Int32Array({sequence->positions.begin(), sequence->positions.end()}));
  }
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
