#include "server/engine/store_activations_job.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/engine/feature_chunks.h"
#include "server/engine/to_array.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using model::Json;

// Of what a specification says; raise it when that changes.
constexpr int kSpecificationVersion = 1;
constexpr ChunkRule kChunks;

// Chunks [first, first + chunks) of a store: an accumulator
// (analysis/accumulator.h) of where a job has got to.
class StoredRange {
 public:
  static constexpr uint32_t kVersion = 1;

  void Add(int64_t chunk) {
    if (chunks_ == 0) first_ = chunk;
    ++chunks_;
  }
  absl::Status Merge(const StoredRange& later) {
    if (chunks_ == 0) first_ = later.first_;
    chunks_ += later.chunks_;
    return absl::OkStatus();
  }
  // Body: i64 first, i64 chunks.
  absl::Status Save(storage::StateWriter* state) const {
    RETURN_IF_ERROR(state->AppendValue(first_));
    return state->AppendValue(chunks_);
  }
  absl::Status Restore(storage::StateReader* state) {
    RETURN_IF_ERROR(state->ReadValue(&first_));
    RETURN_IF_ERROR(state->ReadValue(&chunks_));
    if (first_ >= 0 && first_ < ChunkPlan::kMaxChunks && chunks_ >= 0 &&
        chunks_ <= ChunkPlan::kMaxChunks - first_ && state->left() == 0) {
      return absl::OkStatus();
    }
    return absl::DataLossError("the state is of no chunks");
  }
  int64_t first() const { return first_; }
  int64_t end() const { return first_ + chunks_; }

 private:
  int64_t first_ = 0, chunks_ = 0;
};
static_assert(analysis::Accumulator<StoredRange>);

class StoringWork : public AccumulatingWork<StoredRange> {
 public:
  StoringWork(FeaturesRequest request, int64_t d_sae, TokenJob job,
              const JobHost& host)
      : AccumulatingWork(std::move(job), host, [] { return StoredRange(); }),
        request_(std::move(request)),
        d_sae_(d_sae),
        host_(host) {}

  absl::Status RunChunk(int64_t chunk, const RequestContext& context) override {
    RETURN_IF_ERROR(MakeState());
    RETURN_IF_ERROR(OpenStore());
    // What is there may be damaged: then it is written again.
    if (!store_->Has(chunk) || !store_->Read(chunk).ok()) {
      ASSIGN_OR_RETURN(FeatureChunk made,
                       AskFeatureChunk(request_, job_, chunk,
                                       plan_->pieces(chunk), host_, context));
      RETURN_IF_ERROR(
          store_->Write(chunk, {std::move(made.features), std::move(made.row),
                                std::move(made.position)}));
    }
    totals().Add(chunk);
    return absl::OkStatus();
  }

  absl::Status Save(storage::StateWriter* state) const override {
    if (store_ != nullptr) RETURN_IF_ERROR(store_->Sync());
    return AccumulatingWork::Save(state);
  }
  absl::Status Restore(storage::StateReader* state) override {
    RETURN_IF_ERROR(AccumulatingWork::Restore(state));
    const auto store = host_.stores->Find(job_.provenance.store);
    for (int64_t i = totals().first(); i < totals().end(); ++i) {
      if (store != nullptr && store->Has(i)) continue;
      return absl::DataLossError(absl::StrCat(
          "chunk ", i, " is not in this server's store ",
          storage::ToHex(job_.provenance.store), ": submit the job again"));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status OpenStore() {
    if (store_ != nullptr) return absl::OkStatus();
    StoreAbout about;
    about.key = job_.provenance.store;
    about.provenance = job_.provenance;
    about.d_sae = d_sae_;
    about.chunks = plan_->chunks();
    for (int64_t i = 0; i < about.chunks; ++i) {
      about.tokens += plan_->positions(i);
    }
    about.created = absl::Now();
    ASSIGN_OR_RETURN(store_, host_.stores->Make(about));
    return absl::OkStatus();
  }

  const FeaturesRequest request_;  // without prompts
  const int64_t d_sae_;
  const JobHost host_;
  std::shared_ptr<ActivationStore> store_;  // once a chunk has run
};

}  // namespace

absl::StatusOr<JobSpecification> Specify(const StoreActivationsRequest& request,
                                         const JobHost& host,
                                         const RequestContext& context) {
  ASSIGN_OR_RETURN(const int64_t chunk_tokens,
                   ChunkTokens(request.chunk_tokens, kChunks));
  ASSIGN_OR_RETURN(const Sources sources,
                   host.open(request.dictionary, {}, context));
  FeaturesRequest features;
  features.dictionary = request.dictionary;
  features.processing = request.processing;
  features.min_activation = request.min_activation;
  ASSIGN_OR_RETURN(
      const ResolvedRows resolved,
      ResolveFeatureRows(features, request.prompts, request.rows,
                         request.positions, sources, host, context));
  const Json json = {
      {"dictionary", request.dictionary},
      {"folded", resolved.processing == model::Processing::kFolded},
      {"min_activation", request.min_activation}};
  return JobSpecification{kStoreActivations, request.dictionary,
                          WriteSpecification(kSpecificationVersion, json,
                                             chunk_tokens, resolved.rows)};
}

absl::StatusOr<std::unique_ptr<JobWork>> MakeStoreActivations(
    const std::string& specification, const JobHost& host,
    const RequestContext& context) {
  FeaturesRequest request;
  const auto read = [&](const Json& json) {
    request.dictionary = json.at("dictionary");
    request.processing = json.at("folded").get<bool>()
                             ? model::Processing::kFolded
                             : model::Processing::kRaw;
    request.min_activation = json.at("min_activation");
  };
  ASSIGN_OR_RETURN(
      TokenJob job,
      ReadSpecification(specification, kSpecificationVersion, kChunks, read));
  ASSIGN_OR_RETURN(const Sources sources,
                   host.open(request.dictionary, {}, context));
  ASSIGN_OR_RETURN(const Question question,
                   AskOneToken(request, sources, host.limits));
  Identify(kStoreActivations, specification, {question}, &job);
  job.provenance.store = job.weights[0].activations;
  return std::make_unique<StoringWork>(std::move(request), question.d_sae,
                                       std::move(job), host);
}

absl::StatusOr<ReadStoreAnswer> ReadStore(const ReadStoreRequest& request,
                                          const Limits& limits,
                                          ActivationStores* stores) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const ActivationStore> store,
                   stores->Get(request.key));
  ReadStoreAnswer answer;
  answer.info = store->Info();
  if (!answer.info.complete()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the store \"", request.key, "\" has ", answer.info.tokens_there,
        " of ", answer.info.tokens,
        " tokens: wait for the job that makes it, or submit it again"));
  }
  const int64_t most = answer.info.tokens;
  if (request.first < 0 || request.first >= most || request.count < 0 ||
      request.count > most - request.first) {
    return absl::InvalidArgumentError(
        absl::StrCat("first_token and tokens are ", request.first, " and ",
                     request.count, "; accepted: tokens from 0 to ", most - 1));
  }
  answer.first = request.first;
  ASSIGN_OR_RETURN(answer.tokens,
                   store->ReadTokens(
                       request.first,
                       request.count > 0 ? request.count : most - request.first,
                       limits.max_answer_bytes));
  return answer;
}

}  // namespace cupola::engine
