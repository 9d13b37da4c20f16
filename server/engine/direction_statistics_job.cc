#include "server/engine/direction_statistics_job.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/ask_attribution.h"
#include "server/engine/direction_chunk.h"
#include "server/engine/feature_chunks.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::DirectionStatistics;
using analysis::DirectionStatisticsOptions;
using model::Json;

// Of what a specification says; raise it when that changes.
constexpr int kSpecificationVersion = 1;
// A row is looked at in two places: the one that is scored and the one behind.
constexpr int64_t kPlaces = 2;
constexpr int64_t kChunkRows = 32, kMaxChunkRows = 4096;
constexpr ChunkRule kChunks{kPlaces * kChunkRows, kPlaces* kMaxChunkRows,
                            kMaxChunkRows};
constexpr int64_t kMaxPosition = int64_t{1} << 24;
constexpr int64_t kMaxBoostRows = int64_t{1} << 24;
// Of the state of one job, as of feature_statistics.
constexpr double kMaxBytes = 2.0 * (int64_t{1} << 30);

class DirectionWork : public AccumulatingWork<DirectionStatistics> {
 public:
  DirectionWork(DirectionSetup setup, TokenJob job, const JobHost& host)
      : AccumulatingWork(
            std::move(job), host,
            [options = setup.options] { return DirectionStatistics(options); },
            DirectionStatistics::Bytes(setup.options)),
        setup_(std::move(setup)),
        host_(host) {}

  // All that is read, and not the two places of each row alone.
  int64_t tokens(int64_t chunk) const override {
    int64_t tokens = 0;
    for (const RowPiece& piece : plan_->pieces(chunk)) {
      tokens += job_.rows.position(piece.row, piece.first) + kPlaces;
    }
    return tokens;
  }

  absl::Status RunChunk(int64_t chunk, const RequestContext& context) override {
    RETURN_IF_ERROR(MakeState());
    DirectionChunk asked(setup_, job_, host_);
    RETURN_IF_ERROR(asked.Ask(plan_->pieces(chunk), totals(), context));
    asked.AddTo(&totals());
    return absl::OkStatus();
  }

  const DirectionSetup& setup() const { return setup_; }

 private:
  const DirectionSetup setup_;
  const JobHost host_;
};

absl::Status CheckChosen(absl::string_view field,
                         const std::vector<int64_t>& latents, int64_t below) {
  for (size_t i = 0; i < latents.size(); ++i) {
    if (latents[i] < 0 || latents[i] >= below) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, ": ", latents[i], "; accepted: 0 to ", below - 1));
    }
    if (i > 0 && latents[i] <= latents[i - 1]) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": ", latents[i], " after ", latents[i - 1],
                       "; accepted: ascending, each once"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRequest(const DirectionStatisticsRequest& request) {
  if (request.position == -1) {
    return absl::InvalidArgumentError(
        "position is -1, which no token follows; accepted: from 0 on, or -2 "
        "and less from the end");
  }
  if (request.position < -kMaxPosition || request.position > kMaxPosition) {
    return absl::InvalidArgumentError(
        absl::StrCat("position is ", request.position,
                     "; accepted: ", -kMaxPosition, " to ", kMaxPosition));
  }
  if (request.chunk_rows < 0 || request.chunk_rows > kMaxChunkRows) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk_rows is ", request.chunk_rows,
                     "; accepted: 0 (the server's choice) to ", kMaxChunkRows));
  }
  if (request.boost_rows < 0 || request.boost_rows > kMaxBoostRows) {
    return absl::InvalidArgumentError(
        absl::StrCat("boost_rows is ", request.boost_rows, "; accepted: 0 to ",
                     kMaxBoostRows));
  }
  if (request.boost_rows > 0 && request.directions.empty()) {
    return absl::InvalidArgumentError(
        "directions is empty; accepted with boost_rows: the latents whose "
        "ablation boosts are of");
  }
  return absl::OkStatus();
}

// What the weights that are here make of a request.
absl::StatusOr<DirectionSetup> Settle(const DirectionStatisticsRequest& request,
                                      const Sources& sources,
                                      const JobHost& host) {
  RETURN_IF_ERROR(CheckRequest(request));
  DirectionSetup setup;
  setup.request = request;
  setup.request.prompts.reset();
  setup.request.rows.reset();
  setup.model = sources.model_name;
  FeaturesRequest features;
  features.dictionary = request.dictionary;
  features.processing = request.processing;
  ASSIGN_OR_RETURN(const Question question,
                   AskOneToken(features, sources, host.limits));
  const model::HookPoint hook_out = HooksOf(question, sources).second;
  setup.hook_out = model::HookName(hook_out);
  const int64_t latents = sources.dictionary->manifest().d_sae;
  RETURN_IF_ERROR(
      CheckChosen("ablate_latents", request.ablate_latents, latents));
  RETURN_IF_ERROR(CheckChosen("directions", request.directions, latents));
  DirectionStatisticsOptions& options = setup.options;
  options.latents = latents;
  options.top_k = request.top_k;
  options.active_above = request.active_above;
  options.rows_per_latent = request.rows_per_latent;
  options.mean_rows = request.mean_rows;
  if (request.losses) {
    options.prompts.variants = request.directions.empty() ? 3 : 5;
  }
  if (request.attribution.has_value()) {
    AttributeRequest attribute = AttributionOf(setup);
    attribute.prompts = OneToken();
    attribute.tokens = {{0}};
    ASSIGN_OR_RETURN(const Question asked,
                     AskAttribute(attribute, sources, host.limits));
    setup.components = asked.labels;
    options.prompts.components = static_cast<int64_t>(asked.labels.size());
  }
  if (request.boost_rows > 0) {
    options.prompts.d_vocab = sources.model->config().d_vocab;
  }
  RETURN_IF_ERROR(analysis::CheckOptions(options));
  const double bytes = DirectionStatistics::Bytes(options);
  if (bytes <= kMaxBytes) return setup;
  return absl::ResourceExhaustedError(
      absl::StrCat("the statistics of ", latents, " latents, with top_k ",
                   options.top_k, ", mean_rows ", options.mean_rows,
                   " and rows_per_latent ", options.rows_per_latent, ", take ",
                   bytes, " bytes; accepted: ", kMaxBytes));
}

Json ToJson(const DirectionStatisticsRequest& request, bool folded) {
  Json json = {{"dictionary", request.dictionary},
               {"folded", folded},
               {"position", request.position},
               {"top_k", request.top_k},
               {"rows_per_latent", request.rows_per_latent},
               {"mean_rows", request.mean_rows},
               {"active_above", request.active_above},
               {"ablate", request.ablate},
               {"ablate_latents", request.ablate_latents},
               {"losses", request.losses},
               {"directions", request.directions},
               {"boost_rows", request.boost_rows}};
  if (request.attribution.has_value()) {
    json["attribution"] = static_cast<int>(*request.attribution);
  }
  return json;
}

DirectionStatisticsRequest FromJson(const Json& json) {
  DirectionStatisticsRequest request;
  request.dictionary = json.at("dictionary");
  request.processing = json.at("folded").get<bool>()
                           ? model::Processing::kFolded
                           : model::Processing::kRaw;
  request.position = json.at("position");
  request.top_k = json.at("top_k");
  request.rows_per_latent = json.at("rows_per_latent");
  request.mean_rows = json.at("mean_rows");
  request.active_above = json.at("active_above");
  request.ablate = json.at("ablate");
  request.ablate_latents =
      json.at("ablate_latents").get<std::vector<int64_t>>();
  request.losses = json.at("losses");
  request.directions = json.at("directions").get<std::vector<int64_t>>();
  request.boost_rows = json.at("boost_rows");
  if (json.contains("attribution")) {
    // One that is none of them is refused as the request's would be.
    request.attribution = static_cast<analysis::ComponentLevel>(
        json.at("attribution").get<int>());
  }
  return request;
}

}  // namespace

AttributeRequest AttributionOf(const DirectionSetup& setup) {
  AttributeRequest request;
  request.model = setup.model;
  request.processing = setup.request.processing;
  request.query.target = analysis::AttributionTarget::kTokens;
  request.query.decomposition.level = *setup.request.attribution;
  request.query.decomposition.layer = -1;
  return request;
}

absl::StatusOr<JobSpecification> Specify(
    const DirectionStatisticsRequest& request, const JobHost& host,
    const RequestContext& context) {
  ASSIGN_OR_RETURN(const Sources sources,
                   host.open(request.dictionary, {}, context));
  ASSIGN_OR_RETURN(const DirectionSetup setup, Settle(request, sources, host));
  FeaturesRequest features;
  features.dictionary = request.dictionary;
  features.processing = request.processing;
  const Positions places{Positions::Kind::kEveryPrompt,
                         {{request.position, request.position + 1}}};
  ASSIGN_OR_RETURN(const ResolvedRows resolved,
                   ResolveFeatureRows(features, request.prompts, request.rows,
                                      places, sources, host, context));
  const int64_t chunk_rows =
      request.chunk_rows > 0 ? request.chunk_rows : kChunkRows;
  return JobSpecification{
      kDirectionStatistics, request.dictionary,
      WriteSpecification(
          kSpecificationVersion,
          ToJson(request, resolved.processing == model::Processing::kFolded),
          kPlaces * chunk_rows, resolved.rows)};
}

absl::StatusOr<std::unique_ptr<JobWork>> MakeDirectionStatistics(
    const std::string& specification, const JobHost& host,
    const RequestContext& context) {
  DirectionStatisticsRequest request;
  ASSIGN_OR_RETURN(
      TokenJob job,
      ReadSpecification(specification, kSpecificationVersion, kChunks,
                        [&](const Json& json) { request = FromJson(json); }));
  if (job.rules.positions % kPlaces != 0 ||
      (request.attribution.has_value() &&
       (*request.attribution < analysis::ComponentLevel::kLayers ||
        *request.attribution > analysis::ComponentLevel::kNeurons))) {
    return absl::DataLossError("the job's specification is damaged");
  }
  ASSIGN_OR_RETURN(const Sources sources,
                   host.open(request.dictionary, {}, context));
  // A text may have come from another machine: all is checked again.
  ASSIGN_OR_RETURN(DirectionSetup setup, Settle(request, sources, host));
  setup.options.first_row = job.rows.first_row();
  FeaturesRequest features;
  features.dictionary = request.dictionary;
  features.processing = request.processing;
  ASSIGN_OR_RETURN(const Question question,
                   AskOneToken(features, sources, host.limits));
  Identify(kDirectionStatistics, specification, {question}, &job);
  return std::make_unique<DirectionWork>(std::move(setup), std::move(job),
                                         host);
}

const DirectionSetup& SetupOf(const JobWork& work) {
  return static_cast<const DirectionWork&>(work).setup();
}

const DirectionStatistics& DirectionsOf(const JobWork& work) {
  return static_cast<const DirectionWork&>(work).totals();
}

}  // namespace cupola::engine
