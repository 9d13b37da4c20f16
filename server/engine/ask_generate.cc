#include "server/engine/ask_generate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <numeric>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/analysis/placed_lists.h"
#include "server/engine/place_interventions.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;
using analysis::GeneratedScope;
using analysis::GenerateOptions;
using analysis::PlacedIntervention;

// A record's arrays: see analysis::GenerateAnalysis.
enum : size_t { kLengths, kFinishes, kTokens, kLogprobs, kTop, kTopLogprobs };

template <typename T>
const T* ValuesOf(const storage::Record& record, size_t which) {
  return reinterpret_cast<const T*>(record[which].bytes.data());
}

absl::Status CheckSampling(const GenerateRequest& request,
                           const model::ModelConfig& config) {
  const analysis::Sampling& sampling = request.sampling;
  if (!(sampling.temperature >= 0) || std::isinf(sampling.temperature)) {
    return InvalidArgumentError(StrCat("temperature is ", sampling.temperature,
                                       "; accepted: 0 (greedy) or above"));
  }
  if (!(sampling.top_p > 0) || sampling.top_p > 1) {
    return InvalidArgumentError(
        StrCat("top_p is ", sampling.top_p, "; accepted: above 0, at most 1"));
  }
  const char* const needless = sampling.temperature > 0 ? nullptr
                               : sampling.top_k > 0     ? "top_k"
                               : sampling.top_p < 1     ? "top_p"
                               : request.samples > 1    ? "samples"
                                                        : nullptr;
  if (needless != nullptr) {
    return InvalidArgumentError(
        StrCat(needless,
               " is for sampling, and temperature is 0, which always takes "
               "the most probable token; accepted: a temperature above 0"));
  }
  if (request.top_logprobs > config.d_vocab) {
    return InvalidArgumentError(StrCat("top_logprobs is ", request.top_logprobs,
                                       "; accepted: at most ", config.d_vocab));
  }
  return absl::OkStatus();
}

absl::Status CheckLengths(const GenerateRequest& request,
                          const model::ModelConfig& config,
                          const Limits& limits, Question& question) {
  if (request.max_new_tokens < 1) {
    return InvalidArgumentError("max_new_tokens is 0; accepted: at least 1");
  }
  double tokens = 0;
  for (size_t i = 0; i < question.sequences.size(); ++i) {
    const int64_t length = question.sequences[i]->tokens.size();
    if (length + request.max_new_tokens > config.n_ctx) {
      return InvalidArgumentError(StrCat(
          "max_new_tokens is ", request.max_new_tokens, " and prompts[", i,
          "] has ", length, " tokens; the model's context is ", config.n_ctx));
    }
    tokens += static_cast<double>(length) +
              static_cast<double>(request.samples * request.max_new_tokens);
  }
  if (tokens > static_cast<double>(limits.max_tokens)) {
    return absl::ResourceExhaustedError(
        StrCat("prompts and what is to be generated hold ", tokens,
               " tokens; one request takes ", limits.max_tokens,
               ": ask for fewer prompts, samples or max_new_tokens"));
  }
  // Bytes of a token and of each choice beside it, as a message holds them.
  const double each = 100.0 * static_cast<double>(1 + request.top_logprobs);
  question.work.passes = tokens / static_cast<double>(RowCount(question));
  return NoteAnswerBytes(tokens * each, limits, question);
}

absl::StatusOr<std::vector<int32_t>> StopTokens(
    const GenerateRequest& request, const model::ModelSource& model) {
  std::vector<int32_t> stop = model.eos_token_ids();
  if (request.stop.has_value()) {
    stop.clear();
    for (uint32_t token : *request.stop) {
      if (token >= model.config().d_vocab) {
        return InvalidArgumentError(StrCat("stop: token id ", token,
                                           " is outside the vocabulary, 0 to ",
                                           model.config().d_vocab - 1));
      }
      stop.push_back(static_cast<int32_t>(token));
    }
  }
  std::sort(stop.begin(), stop.end());
  stop.erase(std::unique(stop.begin(), stop.end()), stop.end());
  return stop;
}

// Where an intervention acts on what is generated.
absl::StatusOr<GeneratedScope> ScopeOf(const InterventionRequest& request,
                                       const analysis::Intervention& plain,
                                       const std::string& field,
                                       int64_t max_new_tokens) {
  GeneratedScope scope;
  const bool all = request.positions.kind == Positions::Kind::kAll;
  // What takes its values from somewhere position by position.
  const bool bound =
      plain.change == analysis::Change::kPatch || plain.per_position;
  if (request.scope != Scope::kGenerated) {
    scope.everywhere = request.scope == Scope::kAll && all && !bound;
    return scope;
  }
  if (bound) {
    return InvalidArgumentError(
        StrCat(field, ".scope: what is generated has no positions that a ",
               plain.per_position ? "value with a row per position" : "patch",
               " could stand for; accepted: PROMPT"));
  }
  scope.everywhere = all;
  if (all) return scope;
  if (request.positions.kind == Positions::Kind::kPerPrompt) {
    return InvalidArgumentError(
        StrCat(field,
               ".positions: one list per prompt; accepted: one list, or all, "
               "of the generated positions"));
  }
  for (int64_t position : request.positions.lists[0]) {
    if (position < 0 || position >= max_new_tokens) {
      return InvalidArgumentError(StrCat(field, ".positions: ", position,
                                         " of the generated ones; accepted: "
                                         "0 to ",
                                         max_new_tokens - 1));
    }
    scope.positions.push_back(position);
  }
  std::sort(scope.positions.begin(), scope.positions.end());
  return scope;
}

// What acts on generated positions must not contradict either.
absl::Status CheckGenerated(const GenerateOptions& options,
                            const std::vector<std::string>& fields) {
  std::vector<PlacedIntervention> placed;
  for (size_t i = 0; i < options.interventions.size(); ++i) {
    PlacedIntervention& mine = placed.emplace_back();
    mine.intervention = &options.interventions[i];
    mine.positions = options.generated[i].positions;
    if (options.generated[i].everywhere) {
      mine.positions.resize(options.max_new_tokens);
      std::iota(mine.positions.begin(), mine.positions.end(), 0);
    }
  }
  const absl::Status status = analysis::CheckAgreement(placed, fields);
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      StrCat(status.message(), " of the generated ones"));
}

absl::Status AddInterventions(const GenerateRequest& request,
                              const Sources& sources, const Limits& limits,
                              NamedDictionaries* dictionaries,
                              GenerateOptions* options, Question* question) {
  const auto& token_ids = question->provenance.token_ids;
  std::vector<std::string> fields;
  // Placed interventions point into the vector.
  options->interventions.reserve(request.interventions.size());
  std::vector<std::vector<PlacedIntervention>> placed(token_ids.size());
  for (size_t i = 0; i < request.interventions.size(); ++i) {
    InterventionRequest mine = request.interventions[i];
    const std::string& field =
        fields.emplace_back(StrCat("interventions[", i, "]"));
    ASSIGN_OR_RETURN(
        analysis::Intervention plain,
        MakeIntervention(mine, field, question->provenance.processing, sources,
                         dictionaries));
    ASSIGN_OR_RETURN(GeneratedScope scope,
                     ScopeOf(mine, plain, field, options->max_new_tokens));
    options->interventions.push_back(std::move(plain));
    options->generated.push_back(std::move(scope));
    if (mine.scope == Scope::kGenerated) {
      mine.positions = {Positions::Kind::kEveryPrompt, {{}}};
    }
    ASSIGN_OR_RETURN(
        std::vector<PlacedIntervention> places,
        PlaceIntervention(mine, field, options->interventions.back(), token_ids,
                          sources, limits));
    for (size_t p = 0; p < places.size(); ++p) {
      placed[p].push_back(std::move(places[p]));
    }
  }
  for (size_t p = 0; p < placed.size(); ++p) {
    RETURN_IF_ERROR(analysis::CheckAgreement(placed[p], fields));
    auto sequence =
        std::make_shared<analysis::Sequence>(*question->sequences[p]);
    for (const PlacedIntervention& mine : placed[p]) {
      analysis::AddPlaced(mine, token_ids[p].size(), &sequence->lists);
    }
    question->sequences[p] = std::move(sequence);
  }
  return CheckGenerated(*options, fields);
}

GeneratedPiece::Choice ChoiceOf(const model::Tokenizer& tokenizer,
                                int32_t token, float logprob) {
  // An id of the model's that no token has comes with no bytes.
  return {token, tokenizer.Piece(token).value_or(""), logprob};
}

GeneratedPiece PieceOf(const model::Tokenizer& tokenizer, size_t prompt,
                       const analysis::GeneratedToken& token) {
  GeneratedPiece piece{static_cast<int64_t>(prompt),
                       token.sample,
                       ChoiceOf(tokenizer, token.token, token.logprob),
                       {}};
  for (size_t i = 0; i < token.top_tokens.size(); ++i) {
    if (token.top_tokens[i] < 0) break;
    piece.top.push_back(
        ChoiceOf(tokenizer, token.top_tokens[i], token.top_logprobs[i]));
  }
  return piece;
}

// Tells a sink what a record holds, as it was told when it was made.
void Replay(const storage::Record& record, const analysis::TokenSink& sink) {
  const int64_t samples = record[kLengths].shape[0];
  const int64_t top = record[kTop].shape[1];
  int64_t at = 0;
  for (int64_t sample = 0; sample < samples; ++sample) {
    const int64_t end = at + ValuesOf<int32_t>(record, kLengths)[sample];
    for (; at < end; ++at) {
      const int32_t* tokens = ValuesOf<int32_t>(record, kTop) + at * top;
      const float* logprobs = ValuesOf<float>(record, kTopLogprobs) + at * top;
      const analysis::GeneratedToken token{
          sample,
          ValuesOf<int32_t>(record, kTokens)[at],
          ValuesOf<float>(record, kLogprobs)[at],
          {tokens, tokens + top},
          {logprobs, logprobs + top}};
      if (!sink(token).ok()) return;
    }
  }
}

// The text behind a prompt: decoders may treat a text's first token apart.
std::string TextBehind(const model::Tokenizer& tokenizer,
                       const std::vector<int32_t>& prompt,
                       const std::vector<int32_t>& tokens) {
  // Vocabularies are padded: an id that is no token has no text.
  std::vector<int32_t> before, behind;
  const auto known = [&tokenizer](int32_t id) {
    return tokenizer.Piece(id).ok();
  };
  std::copy_if(prompt.begin(), prompt.end(), std::back_inserter(before), known);
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(behind), known);
  const std::string text = tokenizer.Decode(before).value_or("");
  before.insert(before.end(), behind.begin(), behind.end());
  const std::string whole = tokenizer.Decode(before).value_or("");
  if (absl::StartsWith(whole, text)) return whole.substr(text.size());
  return tokenizer.Decode(behind).value_or("");
}

}  // namespace

absl::StatusOr<Question> AskGenerate(const GenerateRequest& request,
                                     const Sources& sources,
                                     const Limits& limits) {
  const model::ModelConfig& config = sources.model->config();
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kGenerate));
  RETURN_IF_ERROR(AddPrompts(request.prompts, {}, request.processing, sources,
                             limits, question));
  RETURN_IF_ERROR(CheckSampling(request, config));
  RETURN_IF_ERROR(CheckLengths(request, config, limits, question));
  GenerateOptions options;
  options.sampling = request.sampling;
  // Greedy texts are the same under every seed.
  if (request.sampling.temperature > 0) options.seed = request.seed;
  options.samples = request.samples;
  options.max_new_tokens = request.max_new_tokens;
  options.top = request.top_logprobs;
  ASSIGN_OR_RETURN(options.stop, StopTokens(request, *sources.model));
  NamedDictionaries dictionaries(sources);
  RETURN_IF_ERROR(AddInterventions(request, sources, limits, &dictionaries,
                                   &options, &question));
  question.others = dictionaries.uses();
  question.identity =
      analysis::GenerateAnalysis::Identity(options, dictionaries.Digests());
  question.bind = [options](const BoundDictionaries& bound) {
    return std::make_shared<analysis::GenerateAnalysis>(options, bound.others);
  };
  if (!request.sink) return question;
  for (size_t i = 0; i < question.sequences.size(); ++i) {
    question.sinks.push_back([sink = request.sink, i, model = sources.model](
                                 const analysis::GeneratedToken& token) {
      return sink(PieceOf(model->tokenizer(), i, token));
    });
  }
  question.found = [sinks = question.sinks](size_t i,
                                            const storage::Record& record) {
    Replay(record, sinks[i]);
  };
  return question;
}

GenerateAnswer AnswerGenerate(const Question& question, Answered answered) {
  GenerateAnswer answer;
  const model::Tokenizer& tokenizer = question.source->tokenizer();
  for (size_t i = 0; i < answered.records.size(); ++i) {
    const storage::Record& record = *answered.records[i];
    const int32_t* tokens = ValuesOf<int32_t>(record, kTokens);
    std::vector<GenerateAnswer::Text>& texts = answer.texts.emplace_back();
    for (int64_t sample = 0; sample < record[kLengths].shape[0]; ++sample) {
      const int32_t length = ValuesOf<int32_t>(record, kLengths)[sample];
      GenerateAnswer::Text& text = texts.emplace_back();
      text.tokens = length;
      text.finish = static_cast<analysis::Finish>(
          ValuesOf<int32_t>(record, kFinishes)[sample]);
      const bool stopped = text.finish == analysis::Finish::kStop;
      text.text = TextBehind(tokenizer, question.provenance.token_ids[i],
                             {tokens, tokens + length - (stopped ? 1 : 0)});
      tokens += length;
    }
  }
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
