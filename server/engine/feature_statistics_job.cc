#include "server/engine/feature_statistics_job.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/feature_chunks.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::FeatureStatisticsOptions;
using analysis::FeatureStatisticsSet;
using model::Json;

// Of what a specification says; raise it when that changes.
constexpr int kSpecificationVersion = 1;
constexpr ChunkRule kChunks;
// Dictionaries beside the first.
constexpr size_t kMaxOthers = 64;
// Of the state of one job; some more of them are in memory while results are
// asked for and shards merged.
constexpr double kMaxBytes = 2.0 * (int64_t{1} << 30);

class StatisticsWork : public AccumulatingWork<FeatureStatisticsSet> {
 public:
  // `dictionaries`: all of them, request.dictionary first.
  StatisticsWork(FeaturesRequest request, std::vector<std::string> dictionaries,
                 const std::vector<FeatureStatisticsOptions>& options,
                 TokenJob job, const JobHost& host)
      : AccumulatingWork(
            std::move(job), host,
            [options] { return FeatureStatisticsSet(options); },
            FeatureStatisticsSet::Bytes(options)),
        request_(std::move(request)),
        dictionaries_(std::move(dictionaries)),
        host_(host) {}

  absl::Status RunChunk(int64_t chunk, const RequestContext& context) override {
    RETURN_IF_ERROR(MakeState());
    if (dictionaries_.size() > 1) return RunForAll(chunk, context);
    ASSIGN_OR_RETURN(const FeatureChunk features,
                     AskFeatureChunk(request_, job_, chunk,
                                     plan_->pieces(chunk), host_, context));
    totals()[0].Add(features.View(), features.Places());
    return absl::OkStatus();
  }

 private:
  // One run that all dictionaries read.
  absl::Status RunForAll(int64_t chunk, const RequestContext& context) {
    const std::vector<RowPiece> pieces = plan_->pieces(chunk);
    RunRequest request;
    request.model = job_.provenance.model;
    request.processing = request_.processing;
    request.output = false;
    request.dictionaries = dictionaries_;
    RETURN_IF_ERROR(
        job_.rows.Ask(pieces, &request.prompts, &request.positions));
    std::vector<int64_t> row;
    std::vector<int32_t> position;
    job_.rows.Label(pieces, request.positions, &row, &position);
    ASSIGN_OR_RETURN(const RunAnswer answer, host_.run(request, context));
    RETURN_IF_ERROR(job_.CheckSame(answer));
    for (size_t i = 0; i < dictionaries_.size(); ++i) {
      if (ViewOf(answer.features[i]).rows != static_cast<int64_t>(row.size())) {
        return absl::InternalError(
            "a chunk's features are not those asked for");
      }
    }
    for (size_t i = 0; i < dictionaries_.size(); ++i) {
      totals()[i].Add(ViewOf(answer.features[i]),
                      {row.data(), position.data()});
    }
    return absl::OkStatus();
  }

  const FeaturesRequest request_;  // without prompts
  const std::vector<std::string> dictionaries_;
  const JobHost host_;
};

absl::Status CheckSize(const std::vector<FeatureStatisticsOptions>& options) {
  for (const auto& each : options) {
    RETURN_IF_ERROR(analysis::CheckOptions(each));
  }
  const double bytes = FeatureStatisticsSet::Bytes(options);
  if (bytes <= kMaxBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the statistics of ", options[0].latents, " latents",
      options.size() > 1
          ? absl::StrCat(" and those of ", options.size() - 1, " others")
          : "",
      ", with top_k ", options[0].top_k, " and per_stratum ",
      options[0].per_stratum, ", take ", bytes,
      " bytes; accepted: ", kMaxBytes));
}

// The dictionaries of one job, each opened, the first one first.
absl::StatusOr<std::vector<Sources>> OpenAll(
    const std::vector<std::string>& names, const JobHost& host,
    const RequestContext& context) {
  if (names.size() > kMaxOthers + 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("others: ", names.size() - 1,
                     " dictionaries; accepted: 0 to ", kMaxOthers));
  }
  std::vector<Sources> all;
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (!seen.insert(name).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "others: ", name, " comes twice; accepted: each dictionary once"));
    }
    ASSIGN_OR_RETURN(all.emplace_back(), host.open(name, {}, context));
    if (all.back().model_name != all[0].model_name) {
      return absl::InvalidArgumentError(absl::StrCat(
          "others: ", name, " is of model ", all.back().model_name,
          "; accepted: those of ", all[0].model_name, ", as ", names[0]));
    }
  }
  return all;
}

std::vector<std::string> NamesOf(const std::string& dictionary,
                                 const std::vector<std::string>& others) {
  std::vector<std::string> names = {dictionary};
  names.insert(names.end(), others.begin(), others.end());
  return names;
}

}  // namespace

absl::StatusOr<JobSpecification> Specify(
    const FeatureStatisticsRequest& request, const JobHost& host,
    const RequestContext& context) {
  ASSIGN_OR_RETURN(
      const std::vector<Sources> all,
      OpenAll(NamesOf(request.dictionary, request.others), host, context));
  const Sources& sources = all[0];
  std::vector<FeatureStatisticsOptions> options;
  std::vector<int64_t> latents;
  for (const Sources& each : all) {
    latents.push_back(each.dictionary->manifest().d_sae);
    options.push_back({latents.back(), request.top_k, request.distinct_rows,
                       request.per_stratum, request.bins});
  }
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
  Json json = {{"dictionary", request.dictionary},
               {"folded", resolved.processing == model::Processing::kFolded},
               {"latents", latents[0]},
               {"top_k", request.top_k},
               {"distinct_rows", request.distinct_rows},
               {"per_stratum", request.per_stratum},
               {"first_octave", request.bins.first_octave},
               {"octaves", request.bins.octaves},
               {"log2_per_octave", request.bins.log2_per_octave}};
  if (!request.others.empty()) {
    // Each question is checked; that about the first one checks the rows.
    for (const Sources& each : all) {
      FeaturesRequest about = features;
      about.dictionary = each.dictionary_name;
      about.processing = resolved.processing;
      RETURN_IF_ERROR(AskOneToken(about, each, host.limits).status());
    }
    json["others"] = request.others;
    json["other_latents"] =
        std::vector<int64_t>(latents.begin() + 1, latents.end());
  }
  return JobSpecification{kFeatureStatistics, request.dictionary,
                          WriteSpecification(kSpecificationVersion, json,
                                             chunk_tokens, resolved.rows)};
}

absl::StatusOr<std::unique_ptr<JobWork>> MakeFeatureStatistics(
    const std::string& specification, const JobHost& host,
    const RequestContext& context) {
  FeaturesRequest request;
  std::vector<std::string> others;
  std::vector<FeatureStatisticsOptions> options;
  const auto read = [&](const Json& json) {
    request.dictionary = json.at("dictionary");
    request.processing = json.at("folded").get<bool>()
                             ? model::Processing::kFolded
                             : model::Processing::kRaw;
    std::vector<int64_t> latents = {json.at("latents")};
    if (json.contains("others")) {
      others = json.at("others").get<std::vector<std::string>>();
      const auto more = json.at("other_latents").get<std::vector<int64_t>>();
      latents.insert(latents.end(), more.begin(), more.end());
    }
    for (int64_t each : latents) {
      options.push_back({each,
                         json.at("top_k"),
                         json.at("distinct_rows"),
                         json.at("per_stratum"),
                         {json.at("first_octave"), json.at("octaves"),
                          json.at("log2_per_octave")}});
    }
  };
  ASSIGN_OR_RETURN(
      TokenJob job,
      ReadSpecification(specification, kSpecificationVersion, kChunks, read));
  // A text may have come from another machine.
  if (options.size() != others.size() + 1) {
    return absl::DataLossError("the job's specification is damaged");
  }
  RETURN_IF_ERROR(CheckSize(options));
  const std::vector<std::string> names = NamesOf(request.dictionary, others);
  ASSIGN_OR_RETURN(const std::vector<Sources> all,
                   OpenAll(names, host, context));
  std::vector<Question> questions;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].dictionary->manifest().d_sae != options[i].latents) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the job's dictionary ", names[i], " has another size now"));
    }
    FeaturesRequest about = request;
    about.dictionary = names[i];
    ASSIGN_OR_RETURN(questions.emplace_back(),
                     AskOneToken(about, all[i], host.limits));
  }
  Identify(kFeatureStatistics, specification, questions, &job);
  return std::make_unique<StatisticsWork>(std::move(request), names, options,
                                          std::move(job), host);
}

const FeatureStatisticsSet& StatisticsOf(const JobWork& work) {
  return static_cast<const StatisticsWork&>(work).totals();
}

}  // namespace cupola::engine
