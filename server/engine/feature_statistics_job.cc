#include "server/engine/feature_statistics_job.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/feature_chunks.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::FeatureStatistics;
using analysis::FeatureStatisticsOptions;
using model::Json;

// Of what a specification says; raise it when that changes.
constexpr int kSpecificationVersion = 1;
constexpr ChunkRule kChunks;
// Of the state of one job; some more of them are in memory while results are
// asked for and shards merged.
constexpr double kMaxBytes = 2.0 * (int64_t{1} << 30);

class StatisticsWork : public AccumulatingWork<FeatureStatistics> {
 public:
  StatisticsWork(FeaturesRequest request,
                 const FeatureStatisticsOptions& options, TokenJob job,
                 const JobHost& host)
      : AccumulatingWork(
            std::move(job), host,
            [options] { return FeatureStatistics(options); },
            FeatureStatistics::Bytes(options)),
        request_(std::move(request)),
        host_(host) {}

  absl::Status RunChunk(int64_t chunk, const RequestContext& context) override {
    RETURN_IF_ERROR(MakeState());
    ASSIGN_OR_RETURN(const FeatureChunk features,
                     AskFeatureChunk(request_, job_, chunk,
                                     plan_->pieces(chunk), host_, context));
    totals().Add(features.View(), features.Places());
    return absl::OkStatus();
  }

 private:
  const FeaturesRequest request_;  // without prompts
  const JobHost host_;
};

absl::Status CheckSize(const FeatureStatisticsOptions& options) {
  RETURN_IF_ERROR(analysis::CheckOptions(options));
  const double bytes = FeatureStatistics::Bytes(options);
  if (bytes <= kMaxBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the statistics of ", options.latents, " latents, with top_k ",
      options.top_k, " and per_stratum ", options.per_stratum, ", take ", bytes,
      " bytes; accepted: ", kMaxBytes));
}

}  // namespace

absl::StatusOr<JobSpecification> Specify(
    const FeatureStatisticsRequest& request, const JobHost& host,
    const RequestContext& context) {
  ASSIGN_OR_RETURN(const Sources sources,
                   host.open(request.dictionary, {}, context));
  const FeatureStatisticsOptions options{sources.dictionary->manifest().d_sae,
                                         request.top_k, request.distinct_rows,
                                         request.per_stratum, request.bins};
  ASSIGN_OR_RETURN(const int64_t chunk_tokens,
                   ChunkTokens(request.chunk_tokens, kChunks));
  RETURN_IF_ERROR(CheckSize(options));
  FeaturesRequest features;
  features.dictionary = request.dictionary;
  features.processing = request.processing;
  ASSIGN_OR_RETURN(
      const ResolvedRows resolved,
      ResolveFeatureRows(features, request.prompts, request.rows,
                         request.positions, sources, host, context));
  const Json json = {
      {"dictionary", request.dictionary},
      {"folded", resolved.processing == model::Processing::kFolded},
      {"latents", options.latents},
      {"top_k", options.top_k},
      {"distinct_rows", options.distinct_rows},
      {"per_stratum", options.per_stratum},
      {"first_octave", options.bins.first_octave},
      {"octaves", options.bins.octaves},
      {"log2_per_octave", options.bins.log2_per_octave}};
  return JobSpecification{kFeatureStatistics, request.dictionary,
                          WriteSpecification(kSpecificationVersion, json,
                                             chunk_tokens, resolved.rows)};
}

absl::StatusOr<std::unique_ptr<JobWork>> MakeFeatureStatistics(
    const std::string& specification, const JobHost& host,
    const RequestContext& context) {
  FeaturesRequest request;
  FeatureStatisticsOptions options;
  const auto read = [&](const Json& json) {
    request.dictionary = json.at("dictionary");
    request.processing = json.at("folded").get<bool>()
                             ? model::Processing::kFolded
                             : model::Processing::kRaw;
    options = {json.at("latents"),
               json.at("top_k"),
               json.at("distinct_rows"),
               json.at("per_stratum"),
               {json.at("first_octave"), json.at("octaves"),
                json.at("log2_per_octave")}};
  };
  ASSIGN_OR_RETURN(
      TokenJob job,
      ReadSpecification(specification, kSpecificationVersion, kChunks, read));
  // A text may have come from another machine.
  RETURN_IF_ERROR(CheckSize(options));
  ASSIGN_OR_RETURN(const Sources sources,
                   host.open(request.dictionary, {}, context));
  if (sources.dictionary->manifest().d_sae != options.latents) {
    return absl::FailedPreconditionError(
        "the job's dictionary has another size now");
  }
  ASSIGN_OR_RETURN(const Question question,
                   AskOneToken(request, sources, host.limits));
  Identify(kFeatureStatistics, specification, {question}, &job);
  return std::make_unique<StatisticsWork>(std::move(request), options,
                                          std::move(job), host);
}

const FeatureStatistics& StatisticsOf(const JobWork& work) {
  return static_cast<const StatisticsWork&>(work).totals();
}

}  // namespace cupola::engine
