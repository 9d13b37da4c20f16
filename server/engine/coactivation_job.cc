#include "server/engine/coactivation_job.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/feature_chunks.h"
#include "server/model/json.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using analysis::Coactivations;
using analysis::CoactivationsOptions;
using model::Json;

// Of what a specification says; raise it when that changes.
constexpr int kSpecificationVersion = 1;
constexpr ChunkRule kChunks;
constexpr int64_t kSample = 256;  // tokens of a latent, where nobody says
// Of the state of one job, as of feature_statistics.
constexpr double kMaxBytes = 2.0 * (int64_t{1} << 30);

class CoactivationWork : public AccumulatingWork<Coactivations> {
 public:
  CoactivationWork(FeaturesRequest request, const CoactivationsOptions& options,
                   TokenJob job, const JobHost& host)
      : AccumulatingWork(
            std::move(job), host, [options] { return Coactivations(options); },
            Coactivations::Bytes(options)),
        request_(std::move(request)),
        host_(host) {}

  absl::Status RunChunk(int64_t chunk, const RequestContext& context) override {
    RETURN_IF_ERROR(MakeState());
    ASSIGN_OR_RETURN(const FeatureChunk features,
                     AskFeatureChunk(request_, job_, chunk,
                                     plan_->pieces(chunk), host_, context));
    return totals().Add(features.View(), features.Places());
  }

  // What is restored may be asked for its result.
  absl::Status Restore(storage::StateReader* state) override {
    RETURN_IF_ERROR(AccumulatingWork::Restore(state));
    totals().Finish();
    return absl::OkStatus();
  }

 private:
  const FeaturesRequest request_;  // without prompts
  const JobHost host_;
};

absl::Status CheckSize(const CoactivationsOptions& options) {
  RETURN_IF_ERROR(analysis::CheckOptions(options));
  const double bytes = Coactivations::Bytes(options);
  if (bytes <= kMaxBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "sample is ", options.sample,
      options.sample > 0 ? ", which takes " : " (all pairs), which takes ",
      bytes, " bytes for ", options.latents, " latents; accepted: ", kMaxBytes,
      options.products && options.sample == 0
          ? " bytes (without products a third of it is taken)"
          : " bytes"));
}

CoactivationsOptions OptionsOf(const CoactivationRequest& request,
                               const Sources& sources) {
  CoactivationsOptions options{sources.dictionary->manifest().d_sae,
                               request.sample.value_or(0), request.products};
  if (!request.sample.has_value() &&
      Coactivations::Bytes(options) > kMaxBytes) {
    options.sample = kSample;
  }
  return options;
}

}  // namespace

absl::StatusOr<JobSpecification> Specify(const CoactivationRequest& request,
                                         const JobHost& host,
                                         const RequestContext& context) {
  ASSIGN_OR_RETURN(const Sources sources,
                   host.open(request.dictionary, {}, context));
  const CoactivationsOptions options = OptionsOf(request, sources);
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
      {"sample", options.sample},
      {"products", options.products}};
  return JobSpecification{kCoactivation, request.dictionary,
                          WriteSpecification(kSpecificationVersion, json,
                                             chunk_tokens, resolved.rows)};
}

absl::StatusOr<std::unique_ptr<JobWork>> MakeCoactivation(
    const std::string& specification, const JobHost& host,
    const RequestContext& context) {
  FeaturesRequest request;
  CoactivationsOptions options;
  const auto read = [&](const Json& json) {
    request.dictionary = json.at("dictionary");
    request.processing = json.at("folded").get<bool>()
                             ? model::Processing::kFolded
                             : model::Processing::kRaw;
    options = {json.at("latents"), json.at("sample"), json.at("products")};
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
  Identify(kCoactivation, specification, {question}, &job);
  return std::make_unique<CoactivationWork>(std::move(request), options,
                                            std::move(job), host);
}

const Coactivations& CoactivationsOf(const JobWork& work) {
  return static_cast<const CoactivationWork&>(work).totals();
}

}  // namespace cupola::engine
