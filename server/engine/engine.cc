#include "server/engine/engine.h"

#include <utility>
#include <variant>

#include "server/engine/ask_ablate.h"
#include "server/engine/ask_activations.h"
#include "server/engine/ask_directions.h"
#include "server/engine/ask_features.h"
#include "server/engine/ask_generate.h"
#include "server/engine/ask_jacobian.h"
#include "server/engine/ask_logit_lens.h"
#include "server/engine/ask_mean.h"
#include "server/engine/ask_quality.h"
#include "server/engine/ask_reconstruct.h"
#include "server/engine/ask_run.h"
#include "server/engine/ask_tokenize.h"
#include "server/engine/ask_weights.h"
#include "server/engine/engine_impl.h"
#include "server/model/status_macros.h"

namespace cupola::engine {

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const EngineOptions& options, Observer* observer) {
  auto impl = std::make_unique<Impl>(options, observer);
  RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

void Engine::Tokenize(TokenizeRequest request, RequestContext context,
                      Done<TokenizeAnswer> done) {
  impl_->WithModel<TokenizeAnswer>(
      request.model, context, std::move(done),
      [request, limits = impl_->limits()](const Sources& sources) {
        return AnswerTokenize(request, sources, limits);
      });
}

void Engine::GetActivations(ActivationsRequest request, RequestContext context,
                            Done<ActivationsAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskActivations,
                 AnswerActivations);
}

void Engine::GetFeatures(FeaturesRequest request, RequestContext context,
                         Done<FeaturesAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskFeatures,
                 AnswerFeatures);
}

void Engine::Reconstruct(ReconstructRequest request, RequestContext context,
                         Done<ReconstructAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskReconstruct,
                 AnswerReconstruct);
}

void Engine::Run(RunRequest request, RequestContext context,
                 Done<RunAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskRun,
                 AnswerRun);
}

void Engine::Generate(GenerateRequest request, RequestContext context,
                      Done<GenerateAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskGenerate,
                 AnswerGenerate);
}

void Engine::Ablate(AblateRequest request, RequestContext context,
                    Done<AblateAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskAblate,
                 AnswerAblate);
}

void Engine::TabulateAblations(AblationTableRequest request,
                               RequestContext context,
                               Done<AblationTableAnswer> done) {
  impl_->TabulateAblations(std::move(request), context, std::move(done));
}

void Engine::GetWeight(WeightRequest request, RequestContext context,
                       Done<WeightAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskWeight,
                 AnswerWeight);
}

void Engine::GetLatentWeights(LatentWeightsRequest request,
                              RequestContext context,
                              Done<LatentWeightsAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskLatentWeights,
                 AnswerLatentWeights);
}

void Engine::Attribute(AttributeRequest request, RequestContext context,
                       Done<AttributeAnswer> done) {
  impl_->Attribute(std::move(request), context, std::move(done));
}

void Engine::LogitLens(LogitLensRequest request, RequestContext context,
                       Done<LogitLensAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskLogitLens,
                 AnswerLogitLens);
}

void Engine::GetQuality(QualityRequest request, RequestContext context,
                        Done<QualityAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskQuality,
                 AnswerQuality);
}

void Engine::GetJacobian(JacobianRequest request, RequestContext context,
                         Done<JacobianAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskJacobian,
                 AnswerJacobian);
}

void Engine::MeanActivation(MeanActivationRequest request,
                            RequestContext context,
                            Done<MeanActivationAnswer> done) {
  const auto store = [impl = impl_.get(), name = request.name,
                      done = std::move(done)](
                         absl::StatusOr<MeanActivationAnswer> answer) {
    const bool made = answer.ok() && !answer->provenance.estimate.has_value();
    if (made && !name.empty()) {
      MeanKey key = answer->info.key;
      key.name = name;
      absl::StatusOr<MeanInfo> stored =
          impl->means_->Put(key, answer->mean, answer->info.count);
      if (!stored.ok()) return done(stored.status());
      answer->info = *std::move(stored);
    }
    done(std::move(answer));
  };
  impl_->Analyse(std::move(request), context, store, AskMeanActivation,
                 AnswerMeanActivation);
}

void Engine::ListMeans(ListMeansRequest request, RequestContext context,
                       Done<ListMeansAnswer> done) {
  impl_->WithModel<ListMeansAnswer>(
      request.model, context, std::move(done),
      [means = impl_->means_.get()](
          const Sources& sources) -> absl::StatusOr<ListMeansAnswer> {
        ASSIGN_OR_RETURN(std::vector<MeanInfo> found,
                         means->List(sources.model->digest()));
        return ListMeansAnswer{std::move(found)};
      });
}

void Engine::DeleteMean(DeleteMeanRequest request, RequestContext context,
                        Done<DeleteMeanAnswer> done) {
  impl_->WithModel<DeleteMeanAnswer>(
      request.model, context, std::move(done),
      [means = impl_->means_.get(),
       request](const Sources& sources) -> absl::StatusOr<DeleteMeanAnswer> {
        const auto hook =
            model::ParseHookPoint(request.hook, sources.model->config());
        if (!hook.ok()) return hook.status();
        RETURN_IF_ERROR(
            means->Delete({sources.model->digest(), request.processing,
                           model::HookName(*hook), request.name}));
        return DeleteMeanAnswer{};
      });
}

void Engine::AblateDirections(DirectionAblationRequest request,
                              RequestContext context,
                              Done<DirectionAblationAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done),
                 AskDirectionAblation, AnswerDirectionAblation);
}

void Engine::Sweep(SweepRequest request, RequestContext context,
                   Done<SweepAnswer> done) {
  impl_->Analyse(std::move(request), context, std::move(done), AskSweep,
                 AnswerSweep);
}

std::vector<ModelStatus> Engine::Models() const {
  return impl_->catalog_->Models();
}
std::vector<DictionaryStatus> Engine::Dictionaries() const {
  return impl_->catalog_->Dictionaries();
}
absl::StatusOr<EntryStatus> Engine::Describe(const std::string& name) const {
  return impl_->catalog_->Describe(name);
}

void Engine::Load(const std::string& name,
                  std::optional<model::Processing> processing,
                  RequestContext context, Done<std::string> done) {
  impl_->Admit<std::string>(
      context, std::move(done),
      [impl = impl_.get(), name, processing, context](Done<std::string> done) {
        impl->catalog_->Load(name, processing, /*evicts=*/true, context, done);
      });
}

absl::Status Engine::Unload(const std::string& name) {
  return impl_->catalog_->Unload(name);
}

absl::Status Engine::SetCatalog(const CatalogSpec& catalog,
                                const std::string& whole) {
  return impl_->SetCatalog(catalog, whole);
}

absl::Status Engine::CheckFiles(const DictionarySpec& spec) const {
  const auto status = Describe(spec.model);
  if (!status.ok()) return status.status();
  const auto* model = std::get_if<ModelStatus>(&*status);
  // One that has not been opened says nothing of it.
  if (model == nullptr || model->config.n_layers == 0) return absl::OkStatus();
  const auto source = dictionary::DictionarySource::Open(
      spec.path, spec.overrides, model->config);
  return source.ok() ? absl::OkStatus()
                     : absl::InvalidArgumentError(source.status().message());
}

void Engine::SelfCheck(const std::string& name, RequestContext context,
                       Done<DictionaryStatus> done) {
  const std::string entry = ParseDictionaryName(name).entry;
  impl_->CheckDictionary(
      entry, context, [impl = impl_.get(), entry, done](absl::Status status) {
        if (!status.ok()) return done(status);
        done(impl->catalog_->DescribeDictionary(entry));
      });
}

bool Engine::CatalogReady() const { return impl_->loads_left_ == 0; }

storage::ResultCacheStatistics Engine::CacheStatistics() const {
  return impl_->cache_ != nullptr ? impl_->cache_->GetStatistics()
                                  : storage::ResultCacheStatistics{};
}
std::string Engine::CacheDisabledReason() const {
  return impl_->cache_disabled_reason_;
}
std::string Engine::CacheMovedAsideTo() const {
  return impl_->cache_ != nullptr ? impl_->cache_->MovedAsideTo() : "";
}
void Engine::ClearCache() {
  if (impl_->cache_ != nullptr) impl_->cache_->Clear();
}

int64_t Engine::BytesInFlight() const {
  return impl_->runner_->BytesInFlight();
}
int64_t Engine::BudgetBytes() const { return impl_->runner_->BudgetBytes(); }

void Engine::HoldForTesting(bool held) {
  for (auto& [device, worker] : impl_->workers_) {
    worker->queue().HoldForTesting(held);
  }
}

QueueDepths Engine::QueueDepth() const {
  QueueDepths depths;
  for (const auto& [device, worker] : impl_->workers_) {
    const int64_t bulk = worker->queue().bulk_depth();
    depths.bulk += bulk;
    depths.interactive += worker->queue().depth() - bulk;
  }
  return depths;
}
std::vector<std::string> Engine::Devices() const {
  return impl_->catalog_->devices();
}
std::vector<WeightMemory> Engine::Memory() const {
  return impl_->catalog_->Memory();
}
const EngineOptions& Engine::options() const { return impl_->options_; }

void Engine::Drain(absl::Time deadline) { impl_->Drain(deadline); }

}  // namespace cupola::engine
