#include "server/engine/match_features_job.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/analysis/feature_similarities.h"
#include "server/analysis/tensor_io.h"
#include "server/engine/feature_chunks.h"
#include "server/engine/to_array.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::FeatureSimilarities;
using analysis::FeatureSimilarity;
using analysis::FeatureSimilarityOptions;
using analysis::Matching;
using model::Json;
using storage::DType;

// Of what a specification says; raise it when that changes.
constexpr int kSpecificationVersion = 1;
constexpr ChunkRule kChunks;
constexpr size_t kMaxOthers = 64, kMaxThresholds = 1 << 16;
// Of the state of one job: products of 20 pairs of 8192 latents, and more.
constexpr double kMaxBytes = 8.0 * (int64_t{1} << 30);
// Of the activations of a chunk's tokens in all dictionaries.
constexpr double kMaxChunkBytes = 8.0 * (int64_t{1} << 30);
constexpr int64_t kRowsAtOnce = 64;  // cosines computed between polls

class MatchingWork : public AccumulatingWork<FeatureSimilarities> {
 public:
  MatchingWork(FeaturesRequest request, std::vector<std::string> others,
               const std::vector<FeatureSimilarityOptions>& options,
               TokenJob job, const JobHost& host)
      : AccumulatingWork(
            std::move(job), host,
            [options] { return FeatureSimilarities(options); },
            FeatureSimilarities::Bytes(options)),
        request_(std::move(request)),
        others_(std::move(others)),
        host_(host) {}

  // All answers are there before the first is added.
  absl::Status RunChunk(int64_t chunk, const RequestContext& context) override {
    RETURN_IF_ERROR(MakeState());
    FeaturesRequest request = request_;
    request.prompts.emplace();
    RETURN_IF_ERROR(job_.rows.Ask(plan_->pieces(chunk), &*request.prompts,
                                  &request.positions));
    std::vector<SparseArrays> answers;
    for (size_t i = 0; i <= others_.size(); ++i) {
      if (i > 0) request.dictionary = others_[i - 1];
      ASSIGN_OR_RETURN(
          answers.emplace_back(),
          FeaturesOfChunk(request, job_, i, chunk, host_, context));
    }
    std::vector<analysis::SparseView> views;
    for (size_t i = 1; i < answers.size(); ++i) {
      views.push_back(ViewOf(answers[i]));
    }
    return totals().Add(ViewOf(answers[0]), views);
  }

 private:
  const FeaturesRequest request_;  // without prompts
  const std::vector<std::string> others_;
  const JobHost host_;
};

absl::Status CheckOthers(size_t others) {
  if (others >= 1 && others <= kMaxOthers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "others: ", others, " dictionaries; accepted: 1 to ", kMaxOthers));
}

absl::Status CheckSize(const std::vector<FeatureSimilarityOptions>& options) {
  const double bytes = FeatureSimilarities::Bytes(options);
  if (bytes <= kMaxBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the products with ", options.size(), " dictionaries take ",
                   bytes, " bytes; accepted: ", kMaxBytes));
}

// Each of the dictionaries, the first one first.
absl::StatusOr<std::vector<Sources>> OpenAll(
    const std::string& dictionary, const std::vector<std::string>& others,
    const JobHost& host, const RequestContext& context) {
  std::vector<Sources> all;
  ASSIGN_OR_RETURN(all.emplace_back(), host.open(dictionary, {}, context));
  for (const std::string& other : others) {
    ASSIGN_OR_RETURN(all.emplace_back(), host.open(other, {}, context));
  }
  return all;
}

// What the activations of a token take at most in all of them together.
double BytesOfToken(const std::vector<Sources>& all) {
  double active = 0;
  for (const Sources& sources : all) {
    bool guessed = false;
    const double most = MostActive(sources.dictionary->manifest(), &guessed);
    active += guessed
                  ? static_cast<double>(sources.dictionary->manifest().d_sae)
                  : most;
  }
  return active * sizeof(analysis::LatentEntry);
}

absl::Status CheckChunk(int64_t chunk_tokens, const std::vector<Sources>& all) {
  const double most = std::floor(kMaxChunkBytes / BytesOfToken(all));
  if (static_cast<double>(chunk_tokens) <= most) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("chunk_tokens is ", chunk_tokens, "; accepted: up to ", most,
                   ", as the activations of a chunk in ", all.size(),
                   " dictionaries are in memory together"));
}

// The question of one token about each of them.
absl::StatusOr<std::vector<Question>> AskAll(
    const FeaturesRequest& first, const std::vector<std::string>& others,
    const std::vector<Sources>& all, const Limits& limits) {
  FeaturesRequest one = first;
  std::vector<Question> questions;
  for (size_t i = 0; i < all.size(); ++i) {
    if (i > 0) one.dictionary = others[i - 1];
    ASSIGN_OR_RETURN(questions.emplace_back(),
                     AskOneToken(one, all[i], limits));
  }
  return questions;
}

std::vector<FeatureSimilarityOptions> OptionsOf(const std::vector<Sources>& all,
                                                bool float64) {
  std::vector<FeatureSimilarityOptions> options;
  for (size_t i = 1; i < all.size(); ++i) {
    options.push_back({all[0].dictionary->manifest().d_sae,
                       all[i].dictionary->manifest().d_sae, float64});
  }
  return options;
}

absl::Status CheckQuery(const FeatureSimilarities& totals,
                        const FeatureMatchingQuery& query,
                        const Limits& limits) {
  const int64_t others = totals.size();
  if (query.other < 0 || query.other >= others) {
    return absl::InvalidArgumentError(absl::StrCat(
        "other is ", query.other, "; accepted: 0 to ", others - 1));
  }
  if (query.appearing_at < -1 || query.appearing_at >= others) {
    return absl::InvalidArgumentError(
        absl::StrCat("appearing_at is ", query.appearing_at,
                     "; accepted: 0 to ", others - 1, ", or -1 (none)"));
  }
  if (query.thresholds.size() > kMaxThresholds) {
    return absl::InvalidArgumentError(
        absl::StrCat("thresholds: ", query.thresholds.size(),
                     " of them; accepted: up to ", kMaxThresholds));
  }
  for (const double threshold : query.thresholds) {
    if (std::isfinite(threshold)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("thresholds: ", threshold, "; accepted: finite numbers"));
  }
  if (!std::isfinite(query.appearing_threshold)) {
    return absl::InvalidArgumentError(
        absl::StrCat("appearing_threshold is ", query.appearing_threshold,
                     "; accepted: a finite number"));
  }
  for (int64_t i = 0; i < others && Assigns(query); ++i) {
    if (query.appearing_at < 0 && i != query.other) continue;
    RETURN_IF_ERROR(CheckPolicy(query.dead_policy, totals.options(i).a_latents,
                                totals.options(i).b_latents));
  }
  const auto& options = totals.options(query.other);
  if (static_cast<int64_t>(query.rows.size()) > options.a_latents) {
    return absl::InvalidArgumentError(absl::StrCat(
        "rows: ", query.rows.size(),
        " latents; accepted: as many as there are, ", options.a_latents));
  }
  for (const int64_t row : query.rows) {
    if (row >= 0 && row < options.a_latents) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "rows: ", row, "; accepted: 0 to ", options.a_latents - 1));
  }
  if (query.top < 0 || query.top > options.b_latents) {
    return absl::InvalidArgumentError(absl::StrCat(
        "top is ", query.top, "; accepted: 0 (all) to ", options.b_latents));
  }
  const double width =
      query.top > 0 ? 12.0 * query.top : 4.0 * options.b_latents;
  return CheckAnswerBytes(width * static_cast<double>(query.rows.size()) +
                              24.0 * static_cast<double>(options.a_latents),
                          limits);
}

absl::Status PutCosines(const FeatureSimilarity& similarity,
                        const FeatureMatchingQuery& query,
                        const std::function<absl::Status()>& poll,
                        FeatureMatchingAnswer* answer) {
  const int64_t rows = static_cast<int64_t>(query.rows.size());
  const bool some = query.top > 0 && rows > 0;
  const int64_t width = some ? query.top : similarity.options().b_latents;
  at::Tensor cosines =
      rows > 0 ? at::empty({rows, width}, at::kFloat) : at::empty({0});
  at::Tensor alike =
      some ? at::empty({rows, width}, at::kLong) : at::empty({0}, at::kLong);
  for (int64_t first = 0; first < rows; first += kRowsAtOnce) {
    RETURN_IF_ERROR(poll());
    const int64_t count = std::min(kRowsAtOnce, rows - first);
    const auto latents = absl::MakeConstSpan(query.rows).subspan(first, count);
    if (!some) {
      cosines.narrow(0, first, count).copy_(similarity.Cosines(latents));
      continue;
    }
    const auto most = similarity.MostAlike(latents, width);
    cosines.narrow(0, first, count).copy_(most.values);
    alike.narrow(0, first, count).copy_(most.indices);
  }
  answer->cosines = analysis::ToArray(cosines, DType::kFloat32);
  answer->alike = analysis::ToArray(alike, DType::kInt64);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<JobSpecification> Specify(const MatchFeaturesRequest& request,
                                         const JobHost& host,
                                         const RequestContext& context) {
  RETURN_IF_ERROR(CheckOthers(request.others.size()));
  RETURN_IF_ERROR(ChunkTokens(request.chunk_tokens, kChunks).status());
  ASSIGN_OR_RETURN(const std::vector<Sources> all,
                   OpenAll(request.dictionary, request.others, host, context));
  const int64_t chunk_tokens =
      request.chunk_tokens > 0
          ? request.chunk_tokens
          : std::clamp<int64_t>(
                static_cast<int64_t>(kMaxChunkBytes / BytesOfToken(all)), 1,
                kChunks.standard);
  RETURN_IF_ERROR(CheckChunk(chunk_tokens, all));
  const bool float64 = request.float64.value_or(
      CheckSize(OptionsOf(all, /*float64=*/true)).ok());
  RETURN_IF_ERROR(CheckSize(OptionsOf(all, float64)));
  FeaturesRequest features;
  features.dictionary = request.dictionary;
  features.processing = request.processing;
  features.min_activation = request.min_activation;
  ASSIGN_OR_RETURN(
      const ResolvedRows resolved,
      ResolveFeatureRows(features, request.prompts, request.rows,
                         request.positions, all[0], host, context));
  // The others read the same tokens.
  RETURN_IF_ERROR(AskAll(features, request.others, all, host.limits).status());
  for (const Sources& sources : all) {
    RETURN_IF_ERROR(
        resolved.rows.CheckFit(sources.model_name, sources.model->config(),
                               all[0].model->config().d_vocab, context));
  }
  const Json json = {{"dictionary", request.dictionary},
                     {"others", request.others},
                     {"processing", request.processing.has_value()
                                        ? static_cast<int>(*request.processing)
                                        : -1},
                     {"min_activation", request.min_activation},
                     {"float64", float64}};
  return JobSpecification{kMatchFeatures,
                          absl::StrCat(request.dictionary, " <- ",
                                       absl::StrJoin(request.others, ", ")),
                          WriteSpecification(kSpecificationVersion, json,
                                             chunk_tokens, resolved.rows)};
}

absl::StatusOr<std::unique_ptr<JobWork>> MakeMatchFeatures(
    const std::string& specification, const JobHost& host,
    const RequestContext& context) {
  FeaturesRequest request;
  std::vector<std::string> others;
  bool float64 = false;
  const auto read = [&](const Json& json) {
    request.dictionary = json.at("dictionary");
    others = json.at("others").get<std::vector<std::string>>();
    const int processing = json.at("processing");
    if (processing >= 0) {
      request.processing = processing == 0 ? model::Processing::kRaw
                                           : model::Processing::kFolded;
    }
    request.min_activation = json.at("min_activation");
    float64 = json.at("float64");
  };
  ASSIGN_OR_RETURN(
      TokenJob job,
      ReadSpecification(specification, kSpecificationVersion, kChunks, read));
  // A text may have come from another machine.
  RETURN_IF_ERROR(CheckOthers(others.size()));
  ASSIGN_OR_RETURN(const std::vector<Sources> all,
                   OpenAll(request.dictionary, others, host, context));
  const auto options = OptionsOf(all, float64);
  RETURN_IF_ERROR(CheckSize(options));
  RETURN_IF_ERROR(CheckChunk(job.rules.positions, all));
  ASSIGN_OR_RETURN(const std::vector<Question> questions,
                   AskAll(request, others, all, host.limits));
  Identify(kMatchFeatures, specification, questions, &job);
  return std::make_unique<MatchingWork>(std::move(request), std::move(others),
                                        options, std::move(job), host);
}

absl::StatusOr<FeatureMatchingAnswer> AnswerFeatureMatching(
    const JobWork& work, const FeatureMatchingQuery& query,
    const Limits& limits, const std::function<absl::Status()>& poll) {
  const FeatureSimilarities& totals =
      static_cast<const MatchingWork&>(work).totals();
  RETURN_IF_ERROR(CheckQuery(totals, query, limits));
  const FeatureSimilarity& similarity = totals.Finished(query.other);
  FeatureMatchingAnswer answer;
  answer.tokens = similarity.tokens();
  answer.a_latents = similarity.options().a_latents;
  answer.b_latents = similarity.options().b_latents;
  answer.float64 = similarity.options().float64;
  Matching matching;
  if (query.matching || !query.thresholds.empty()) {
    ASSIGN_OR_RETURN(matching,
                     totals.MatchingWith(query.other, query.dead_policy, poll));
  }
  answer.counted = matching.counted;
  answer.fractions =
      ToVector(DType::kFloat64, MatchedFractions(matching, query.thresholds));
  if (!query.matching) matching = {};
  answer.matched = ToVector(DType::kInt64, matching.matched);
  answer.distances = ToVector(DType::kFloat64, matching.distances);
  std::vector<int64_t> appearing;
  if (query.appearing_at >= 0) {
    std::vector<Matching> all;
    for (int64_t i = 0; i < totals.size(); ++i) {
      ASSIGN_OR_RETURN(Matching one,
                       totals.MatchingWith(i, query.dead_policy, poll));
      all.push_back(std::move(one));
    }
    appearing = analysis::AppearingFeatures(all, query.appearing_at,
                                            query.appearing_threshold);
  }
  answer.appearing = ToVector(DType::kInt64, appearing);
  RETURN_IF_ERROR(PutCosines(similarity, query, poll, &answer));
  return answer;
}

}  // namespace cupola::engine
