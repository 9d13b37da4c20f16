#include "server/engine/ask_ablate.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/ablate.h"
#include "server/engine/ask_run.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using absl::InvalidArgumentError;
using absl::StrCat;

// A record's arrays: see analysis::AblateAnalysis.
enum RecordArray : size_t {
  kLatent = 0,
  kPosition = 1,
  kPlace = 2,
  kActivation = 3,  // then loss, logprob, rank
  kBaseLoss = 7,    // then logprob, rank
  kLaterLoss = 10,
  kLosses = 11,
  kBaseLaterLoss = 12,
  kBaseLosses = 13,
};

// What is taken away of each prompt, by position.
using Places = std::vector<std::map<int64_t, std::set<int64_t>>>;
constexpr double kPlacedBytes = 48;  // of one of them

absl::Status CheckLatent(uint32_t latent, int64_t d_sae,
                         const std::string& field) {
  if (latent < d_sae) return absl::OkStatus();
  return InvalidArgumentError(
      StrCat(field, ": ", latent, " is not below d_sae = ", d_sae));
}

// The positions that AddPrompts resolves. Of targets: theirs, prompt by prompt
// and in their order.
absl::StatusOr<Positions> PositionsOf(const AblateRequest& request) {
  if (request.targets.empty()) {
    if (request.positions.kind != Positions::Kind::kAll || request.together) {
      return request.positions;
    }
    return Positions{Positions::Kind::kEveryPrompt, {{-2}}};
  }
  if (request.positions.kind != Positions::Kind::kAll || request.together ||
      !request.latents.empty()) {
    return InvalidArgumentError(
        "targets: beside position, latents or together; accepted: alone");
  }
  Positions positions{Positions::Kind::kPerPrompt, {}};
  positions.lists.resize(request.prompts.prompts.size());
  for (size_t i = 0; i < request.targets.size(); ++i) {
    const AblateRequest::Target& target = request.targets[i];
    if (target.prompt >= positions.lists.size()) {
      return InvalidArgumentError(
          StrCat("targets[", i, "].prompt: ", target.prompt, " is not below ",
                 positions.lists.size()));
    }
    positions.lists[target.prompt].push_back(target.position);
  }
  return positions;
}

absl::StatusOr<Places> PlacesOf(const AblateRequest& request,
                                const Question& question, int64_t d_sae,
                                const Limits& limits) {
  Places places(question.sequences.size());
  std::vector<size_t> next(places.size(), 0);
  for (size_t i = 0; i < request.targets.size(); ++i) {
    const AblateRequest::Target& target = request.targets[i];
    RETURN_IF_ERROR(
        CheckLatent(target.latent, d_sae, StrCat("targets[", i, "].latent")));
    const auto& resolved = question.sequences[target.prompt]->positions;
    places[target.prompt][resolved[next[target.prompt]++]].insert(
        target.latent);
  }
  if (!request.targets.empty()) return places;
  double held = 0;
  for (size_t i = 0; i < places.size(); ++i) {
    const std::vector<uint32_t>& latents = request.prompt_latents.empty()
                                               ? request.latents
                                               : request.prompt_latents[i];
    for (uint32_t latent : latents) {
      RETURN_IF_ERROR(CheckLatent(latent, d_sae, "latents"));
    }
    const std::set<int64_t> wanted(latents.begin(), latents.end());
    held += static_cast<double>(wanted.size()) *
            static_cast<double>(question.sequences[i]->positions.size());
    RETURN_IF_ERROR(CheckAnswerBytes(kPlacedBytes * held, limits));
    for (int64_t position : question.sequences[i]->positions) {
      places[i][position] = wanted;
    }
    if (places[i].empty()) {
      return InvalidArgumentError(StrCat("position: none for prompt ", i,
                                         "; accepted: one or several"));
    }
  }
  return places;
}

// Whether what is read of a prompt is there.
absl::Status CheckRead(const AblateRequest& request,
                       const analysis::Sequence& sequence, size_t prompt) {
  const int64_t tokens = static_cast<int64_t>(sequence.tokens.size());
  if ((request.together || request.later) && tokens < 2) {
    return InvalidArgumentError(
        StrCat("prompts[", prompt, "] has ", tokens,
               " token, which no other follows; accepted: at least 2"));
  }
  if (!request.answers.empty() || request.together ||
      sequence.positions.empty() || sequence.positions.back() + 1 < tokens) {
    return absl::OkStatus();
  }
  return InvalidArgumentError(
      StrCat("position: ", sequence.positions.back(),
             " is the last token of prompt ", prompt,
             ", which no token follows; accepted: an earlier one, or answers"));
}

// The losses of prompts of different lengths, NaN behind the shorter ones'.
Array Pad(const Records& records, size_t which) {
  int64_t longest = 0;
  for (const auto& record : records) {
    longest = std::max(longest, (*record)[which].shape.back());
  }
  Array all{
      (*records.front())[which].dtype, (*records.front())[which].shape, {}};
  all.shape.front() = 0;
  all.shape.back() = longest;
  for (const auto& record : records) {
    const Array& mine = (*record)[which];
    const size_t width = mine.shape.back() * sizeof(float);
    const std::vector<float> missing(longest - mine.shape.back(),
                                     std::numeric_limits<float>::quiet_NaN());
    for (size_t begin = 0; begin < mine.bytes.size(); begin += width) {
      all.bytes.append(mine.bytes, begin, width);
      all.bytes.append(reinterpret_cast<const char*>(missing.data()),
                       missing.size() * sizeof(float));
    }
    all.shape.front() += mine.shape.front();
  }
  return all;
}

}  // namespace

absl::StatusOr<Question> AskAblate(const AblateRequest& request,
                                   const Sources& sources,
                                   const Limits& limits) {
  ASSIGN_OR_RETURN(Question question,
                   BeginQuestion(sources, analysis::Operation::kAblate));
  const auto [hook_in, hook_out] = HooksOf(question, sources);
  if (model::ForwardOrder(hook_in) > model::ForwardOrder(hook_out)) {
    return InvalidArgumentError(
        StrCat("dictionary: it reads ", model::HookName(hook_in),
               ", which comes after ", model::HookName(hook_out),
               ", where it writes; nothing of it can be taken away"));
  }
  ASSIGN_OR_RETURN(const Positions positions, PositionsOf(request));
  RETURN_IF_ERROR(AddPrompts(request.prompts, positions, request.processing,
                             sources, limits, question));
  ASSIGN_OR_RETURN(auto answers,
                   CheckAnswers(request.answers, question.sequences.size(),
                                sources.model->config()));
  const analysis::AblateOptions options{
      request.mode, static_cast<int64_t>(answers.front().size()),
      request.together, request.later, limits.max_answer_bytes};
  ASSIGN_OR_RETURN(const Places places,
                   PlacesOf(request, question,
                            sources.dictionary->manifest().d_sae, limits));
  double bytes = 0, expected = 0, ablations = 0;
  const double active =
      MostActive(sources.dictionary->manifest(), &question.answer_is_guessed);
  for (size_t i = 0; i < question.sequences.size(); ++i) {
    auto sequence =
        std::make_shared<analysis::Sequence>(*question.sequences[i]);
    sequence->positions.clear();
    sequence->lists = {std::move(answers[i])};
    // Latent, place and so on, two numbers of each answer, later losses. How
    // many latents are active is not known before.
    const double row = 24 + 8.0 * std::max<int64_t>(1, options.answers) +
                       (options.later ? 4.0 * sequence->tokens.size() : 0);
    for (const auto& [position, latents] : places[i]) {
      sequence->positions.push_back(position);
      if (options.together && sequence->lists.size() > 1) continue;
      sequence->lists.emplace_back(latents.begin(), latents.end());
      const double count =
          latents.empty() ? active : static_cast<double>(latents.size());
      bytes += row * static_cast<double>(latents.size());
      expected += row * count;
      ablations += count;
    }
    RETURN_IF_ERROR(CheckRead(request, *sequence, i));
    question.sequences[i] = std::move(sequence);
  }
  RETURN_IF_ERROR(CheckAnswerBytes(bytes, limits));
  question.answer_bytes = expected;
  // Every ablation is about a pass of its own.
  question.work.passes = 1 + ablations / question.sequences.size();
  question.identity = analysis::AblateAnalysis::Identity(
      question.provenance.dictionary_digest, question.half, options);
  question.bind = [hook_in = hook_in, hook_out = hook_out,
                   options](DictionaryPtr dictionary) {
    return std::make_shared<analysis::AblateAnalysis>(
        std::move(dictionary), hook_in, hook_out, options);
  };
  return question;
}

AblateAnswer AnswerAblate(const Question& question, Answered answered) {
  AblateAnswer answer;
  const Records& records = answered.records;
  std::vector<int32_t> prompts, places;
  int32_t places_before = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    const std::vector<Array>& record = *records[i];
    prompts.insert(prompts.end(), record[kLatent].shape[0],
                   static_cast<int32_t>(i));
    for (int64_t row = 0; row < record[kPlace].shape[0]; ++row) {
      int32_t place;
      std::memcpy(&place, record[kPlace].bytes.data() + row * sizeof(place),
                  sizeof(place));
      places.push_back(places_before + place);
    }
    places_before += static_cast<int32_t>(record[kBaseLoss].shape[0]);
  }
  answer.prompt = Int32Array(prompts);
  answer.place = Int32Array(places);
  answer.latent = Concatenate(records, kLatent);
  answer.position = Concatenate(records, kPosition);
  size_t next = kActivation;
  for (Array* array :
       {&answer.activation, &answer.loss, &answer.logprob, &answer.rank,
        &answer.base_loss, &answer.base_logprob, &answer.base_rank}) {
    *array = Concatenate(records, next++);
  }
  answer.later = records.front()->size() > kLaterLoss;
  if (answer.later) {
    answer.later_loss = Concatenate(records, kLaterLoss);
    answer.losses = Pad(records, kLosses);
    answer.base_later_loss = Concatenate(records, kBaseLaterLoss);
    answer.base_losses = Pad(records, kBaseLosses);
  }
  answer.provenance = ProvenanceOf(question, answered);
  return answer;
}

}  // namespace cupola::engine
