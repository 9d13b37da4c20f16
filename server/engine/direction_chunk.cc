#include "server/engine/direction_chunk.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using Effect = analysis::DirectionStatistics::Effect;

template <typename T>
const T* ValuesOf(const Array& array) {
  return reinterpret_cast<const T*>(array.bytes.data());
}

std::vector<uint32_t> ToLatents(const std::vector<int64_t>& latents) {
  return {latents.begin(), latents.end()};
}

}  // namespace

absl::Status DirectionChunk::AskRows(const std::vector<RowPiece>& pieces) {
  Positions positions;
  RETURN_IF_ERROR(job_.rows.Ask(pieces, &prompts_, &positions));
  scored_.kind = Positions::Kind::kPerPrompt;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::vector<int64_t>& both = positions.lists[i];
    if (both.size() != 2 || both[0] < 0 || both[1] != both[0] + 1) {
      return absl::DataLossError("the job's rows are damaged");
    }
    rows_.push_back(job_.rows.first_row() + pieces[i].row);
    scored_.lists.push_back({both[0]});
  }
  return absl::OkStatus();
}

absl::Status DirectionChunk::AskFeatures(const RequestContext& context) {
  FeaturesRequest request;
  request.dictionary = setup_.request.dictionary;
  request.processing = setup_.request.processing;
  request.prompts = prompts_;
  request.positions.kind = Positions::Kind::kPerPrompt;
  for (size_t i = 0; i < rows_.size(); ++i) {
    std::vector<int64_t>& all = request.positions.lists.emplace_back(
        std::vector<int64_t>(scored_.lists[i][0] + 1));
    std::iota(all.begin(), all.end(), 0);
  }
  ASSIGN_OR_RETURN(features_,
                   AskFeatureChunk(request, rows_, job_, host_, context));
  return absl::OkStatus();
}

absl::Status DirectionChunk::AskEffects(
    const analysis::DirectionStatistics& totals,
    const RequestContext& context) {
  if (!setup_.request.ablate) return absl::OkStatus();
  const std::vector<int64_t>& chosen = setup_.request.ablate_latents;
  AblateRequest request;
  request.dictionary = setup_.request.dictionary;
  request.processing = setup_.request.processing;
  request.positions.kind = Positions::Kind::kPerPrompt;
  std::vector<int64_t> row_of;  // by prompt of the request
  std::unordered_map<int32_t, int64_t> planned;
  const analysis::SparseView view = features_.View();
  int64_t token = -1;
  for (size_t i = 0; i < rows_.size(); ++i) {
    token += scored_.lists[i][0] + 1;
    std::vector<uint32_t> latents;
    for (int64_t k = view.indptr[token]; k < view.indptr[token + 1]; ++k) {
      const int32_t latent = view.indices[k];
      if (!(view.values[k] > setup_.options.active_above) ||
          (!chosen.empty() &&
           !std::binary_search(chosen.begin(), chosen.end(), latent)) ||
          static_cast<int64_t>(totals.ActiveRows(latent).size()) +
                  planned[latent] >=
              setup_.options.rows_per_latent) {
        continue;
      }
      ++planned[latent];
      latents.push_back(latent);
    }
    if (latents.empty()) continue;
    row_of.push_back(rows_[i]);
    request.prompts.prompts.push_back(prompts_.prompts[i]);
    request.positions.lists.push_back(scored_.lists[i]);
    request.prompt_latents.push_back(std::move(latents));
  }
  if (row_of.empty()) return absl::OkStatus();
  std::map<std::pair<int64_t, int32_t>, Effect> effects;
  const auto ask = [&](analysis::AblateMode mode,
                       float Effect::*increase) -> absl::Status {
    request.mode = mode;
    ASSIGN_OR_RETURN(const AblateAnswer answer, host_.ablate(request, context));
    RETURN_IF_ERROR(job_.CheckSame(answer.provenance));
    const auto* prompt = ValuesOf<int32_t>(answer.prompt);
    const auto* latent = ValuesOf<uint32_t>(answer.latent);
    const auto* place = ValuesOf<int32_t>(answer.place);
    const auto* loss = ValuesOf<float>(answer.loss);
    const auto* base = ValuesOf<float>(answer.base_loss);
    for (int64_t i = 0; i < answer.latent.shape[0]; ++i) {
      const int64_t row = row_of[prompt[i]];
      Effect& effect = effects[{row, static_cast<int32_t>(latent[i])}];
      effect.row = row;
      effect.latent = static_cast<int32_t>(latent[i]);
      effect.*increase = loss[i] - base[place[i] * answer.base_loss.shape[1]];
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(ask(analysis::AblateMode::kSubtract, &Effect::loss_increase));
  RETURN_IF_ERROR(
      ask(analysis::AblateMode::kReconstruct, &Effect::loss_increase_encoded));
  for (const auto& [place, effect] : effects) effects_.push_back(effect);
  return absl::OkStatus();
}

RunRequest DirectionChunk::RunOf(size_t prompts) const {
  RunRequest request;
  request.model = setup_.model;
  request.processing = setup_.request.processing;
  request.prompts.prompts = {prompts_.prompts.begin(),
                             prompts_.prompts.begin() + prompts};
  request.positions = {
      scored_.kind, {scored_.lists.begin(), scored_.lists.begin() + prompts}};
  InterventionRequest without;
  without.change = analysis::Change::kSubtractLatents;
  without.dictionary = setup_.request.dictionary;
  without.positions = request.positions;
  without.latents = ToLatents(setup_.request.directions);
  request.sets = {{std::move(without)}};
  return request;
}

absl::Status DirectionChunk::AskLosses(const RequestContext& context) {
  if (!setup_.request.losses) return absl::OkStatus();
  RunRequest request = RunOf(rows_.size());
  const InterventionRequest without = std::move(request.sets[0][0]);
  InterventionRequest zero;
  zero.change = analysis::Change::kZero;
  zero.hook = setup_.hook_out;
  zero.positions = without.positions;
  InterventionRequest rebuilt;
  rebuilt.change = analysis::Change::kReconstruct;
  rebuilt.dictionary = without.dictionary;
  rebuilt.positions = without.positions;
  request.sets = {{zero}, {rebuilt}};
  if (!without.latents.empty()) {
    rebuilt.latents = without.latents;
    rebuilt.values.assign(without.latents.size(), 0.0f);
    request.sets.push_back({without});
    request.sets.push_back({rebuilt});
  }
  ASSIGN_OR_RETURN(losses_, host_.run(request, context));
  return job_.CheckSame(*losses_);
}

absl::Status DirectionChunk::AskAttribution(const RequestContext& context) {
  if (setup_.components.empty()) return absl::OkStatus();
  AttributeRequest request = AttributionOf(setup_);
  request.prompts = prompts_;
  request.positions = scored_;
  for (size_t i = 0; i < rows_.size(); ++i) {
    request.tokens.push_back(
        {prompts_.prompts[i].ids[scored_.lists[i][0] + 1]});
  }
  ASSIGN_OR_RETURN(attribution_, host_.attribute(request, context));
  return job_.CheckModel(attribution_->provenance.model_digest);
}

absl::Status DirectionChunk::AskBoosts(const RequestContext& context) {
  size_t counted = 0;
  while (counted < rows_.size() &&
         rows_[counted] - job_.rows.first_row() < setup_.request.boost_rows) {
    ++counted;
  }
  if (setup_.options.prompts.d_vocab == 0 || counted == 0) {
    return absl::OkStatus();
  }
  RunRequest request = RunOf(counted);
  request.boosts.emplace();
  request.boosts->top = 1;
  request.boosts->sums = true;
  ASSIGN_OR_RETURN(boosts_, host_.run(request, context));
  return job_.CheckSame(*boosts_);
}

absl::Status DirectionChunk::Ask(const std::vector<RowPiece>& pieces,
                                 const analysis::DirectionStatistics& totals,
                                 const RequestContext& context) {
  RETURN_IF_ERROR(AskRows(pieces));
  RETURN_IF_ERROR(AskFeatures(context));
  RETURN_IF_ERROR(AskEffects(totals, context));
  RETURN_IF_ERROR(AskLosses(context));
  RETURN_IF_ERROR(AskAttribution(context));
  return AskBoosts(context);
}

void DirectionChunk::AddTo(analysis::DirectionStatistics* totals) const {
  const int64_t rows = static_cast<int64_t>(rows_.size());
  totals->Add(features_.View(), features_.Places(), effects_);
  analysis::PromptTotals& prompts = totals->prompts();
  if (losses_.has_value()) {
    prompts.AddLosses(ValuesOf<float>(losses_->loss), rows);
  }
  if (attribution_.has_value()) {
    prompts.AddAttribution(ValuesOf<float>(attribution_->values), rows);
  }
  if (boosts_.has_value()) {
    const auto* sums = ValuesOf<double>(boosts_->boosts->sums);
    prompts.AddLogprobs(sums, sums + setup_.options.prompts.d_vocab,
                        boosts_->prompt.shape[0]);
  }
  for (const Prompt& prompt : prompts_.prompts) {
    prompts.CountTokens(prompt.ids);
  }
}

}  // namespace cupola::engine
