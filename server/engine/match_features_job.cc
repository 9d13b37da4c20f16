#include "server/engine/match_features_job.h"

#include <algorithm>
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
  const auto& options = totals.options(query.other);
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

}  // namespace

absl::StatusOr<JobSpecification> Specify(const MatchFeaturesRequest& request,
                                         const JobHost& host,
                                         const RequestContext& context) {
  RETURN_IF_ERROR(CheckOthers(request.others.size()));
  ASSIGN_OR_RETURN(const int64_t chunk_tokens,
                   ChunkTokens(request.chunk_tokens, kChunks));
  ASSIGN_OR_RETURN(const std::vector<Sources> all,
                   OpenAll(request.dictionary, request.others, host, context));
  RETURN_IF_ERROR(CheckSize(OptionsOf(all, request.float64)));
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
                     {"float64", request.float64}};
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
  std::vector<at::Tensor> cosines, alike;
  for (const int64_t row : query.rows) {
    RETURN_IF_ERROR(poll());
    if (query.top == 0) {
      cosines.push_back(similarity.Cosines(row, 1));
      continue;
    }
    const auto most = similarity.MostAlike(row, 1, query.top);
    cosines.push_back(most.values);
    alike.push_back(most.indices);
  }
  const auto joined = [](const std::vector<at::Tensor>& rows,
                         at::ScalarType type) {
    return rows.empty() ? at::empty({0}, type) : at::cat(rows);
  };
  answer.cosines =
      analysis::ToArray(joined(cosines, at::kFloat), DType::kFloat32);
  answer.alike = analysis::ToArray(joined(alike, at::kLong), DType::kInt64);
  return answer;
}

}  // namespace cupola::engine
