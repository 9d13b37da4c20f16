#include "server/engine/engine_impl.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/engine/ask_ablate.h"
#include "server/engine/ask_attribution.h"
#include "server/engine/ask_features.h"
#include "server/engine/ask_reconstruct.h"
#include "server/engine/numerics.h"
#include "server/engine/self_check.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

constexpr int kSlowThreads = 4;
constexpr int kAssigningThreads = 2;

}  // namespace

// What is no cache lies in a folder of the cache's, which it leaves alone. A
// cache that could not be opened was moved aside with it: it comes back.
std::string Engine::Impl::StateDirectory() const {
  namespace fs = std::filesystem;
  std::string cache = options_.cache.directory;
  while (cache.size() > 1 && cache.back() == '/') cache.pop_back();
  if (cache.empty()) return "";
  const fs::path mine = fs::path(cache) / "state";
  std::error_code failed;
  if (fs::exists(mine, failed)) return mine;
  // A cache that could not be opened was moved aside with all that lay in it,
  // now or by a process that ended before it could take this back.
  fs::path newest;
  const std::string begin = fs::path(cache).filename().string() + ".corrupt-";
  for (const auto& entry :
       fs::directory_iterator(fs::absolute(cache).parent_path(), failed)) {
    const fs::path state = entry.path() / "state";
    if (absl::StartsWith(entry.path().filename().string(), begin) &&
        fs::exists(state, failed) && state > newest) {
      newest = state;
    }
  }
  if (!newest.empty()) fs::rename(newest, mine, failed);
  return mine;
}

absl::Status Engine::Impl::Start() {
  CatalogOptions catalog;
  ASSIGN_OR_RETURN(catalog.devices,
                   DevicesFor(options_.device, options_.catalog));
  catalog.device_memory = options_.device_memory;
  catalog.min_residency = options_.min_residency;
  catalog.product_bytes = options_.product_bytes;
  catalog.host_memory = options_.host_memory;
  catalog_ = std::make_unique<Catalog>(options_.catalog, catalog, observer_);
  if (options_.cache.directory.empty()) {
    cache_disabled_reason_ = "no cache directory was given";
  } else {
    auto cache = storage::ResultCache::Open(options_.cache);
    // A server without a cache is slower, not wrong.
    if (cache.ok()) {
      cache_ = *std::move(cache);
    } else {
      cache_disabled_reason_ = std::string(cache.status().message());
    }
  }
  means_ = MeanStore::Open(StateDirectory());
  front_ = std::make_unique<Executor>(options_.front_threads);
  const DeviceQueue::Options queue = {
      .max_parts = options_.max_queued_prompts,
      .max_parts_per_client = options_.max_queued_prompts_per_client,
      .batch_tokens = options_.batch_tokens};
  for (const std::string& name : catalog_->devices()) {
    workers_[name] = std::make_unique<DeviceWorker>(name, queue, observer_);
  }
  workers_[kFilesWorker] =
      std::make_unique<DeviceWorker>("cpu", queue, observer_);
  const Admission::Options admission = {
      .budget_bytes = options_.request_bytes,
      .max_parts = options_.max_queued_prompts,
      .max_parts_per_client = options_.max_queued_prompts_per_client};
  runner_ =
      std::make_unique<RequestRunner>(catalog_.get(), cache_.get(), &workers_,
                                      admission, front_.get(), observer_);
  LoadNew(Entries{}, *catalog_->entries());
  slow_ = std::make_unique<Executor>(kSlowThreads);
  assigning_ = std::make_unique<Executor>(kAssigningThreads);
  StartDatasets();
  StartStores();
  StartJobs();
  return absl::OkStatus();
}

absl::Status Engine::Impl::SetCatalog(const CatalogSpec& spec,
                                      const std::string& whole) {
  if (draining_) {
    return absl::UnavailableError("the server is shutting down");
  }
  ASSIGN_OR_RETURN(const Catalog::Change change, catalog_->Set(spec, whole));
  LoadNew(*change.before, *change.now);
  return absl::OkStatus();
}

void Engine::Impl::LoadNew(const Entries& before, const Entries& now) {
  std::vector<const ModelEntry*> models;
  for (const std::string& name : now.model_order) {
    const auto old = before.models.find(name);
    const auto& entry = now.models.at(name);
    if (old != before.models.end() && old->second == entry) continue;
    models.push_back(entry.get());
  }
  std::vector<const DictionaryEntry*> dictionaries;
  for (const std::string& name : now.dictionary_order) {
    const auto old = before.dictionaries.find(name);
    const auto& entry = now.dictionaries.at(name);
    if (old != before.dictionaries.end() && old->second == entry) continue;
    dictionaries.push_back(entry.get());
  }
  loads_left_ += static_cast<int>(models.size() + dictionaries.size());
  // A model all of whose dictionaries are folded is not also loaded raw.
  for (const ModelEntry* model : models) {
    std::optional<model::Processing> processing;
    for (const auto& [name, dictionary] : now.dictionaries) {
      if (dictionary->model.get() != model) continue;
      const auto wanted = dictionary->spec.overrides.processing.value_or(
          model::Processing::kRaw);
      if (!processing.has_value() || wanted == model::Processing::kRaw) {
        processing = wanted;
      }
    }
    catalog_->Load(model->spec.name, processing, /*evicts=*/false, unasked_,
                   [this](absl::StatusOr<std::string>) { --loads_left_; });
  }
  for (const DictionaryEntry* dictionary : dictionaries) {
    const auto loaded = [this](absl::StatusOr<std::string> name) {
      --loads_left_;
      if (!name.ok() || !options_.self_check) return;
      CheckDictionary(*name, unasked_, [this, entry = *name](absl::Status s) {
        if (s.ok()) return;
        const auto status = catalog_->DescribeDictionary(entry);
        if (!status.ok()) return;
        catalog_->SetMeasured(
            entry, status->digest,
            {{}, {}, {absl::StrCat("not measured: ", s.message())}});
      });
    };
    catalog_->Load(dictionary->spec.name, std::nullopt, /*evicts=*/false,
                   unasked_, loaded);
  }
}

void Engine::Impl::OpenModel(const std::string& name,
                             const RequestContext& context,
                             Catalog::Done<Sources> done, EntriesPtr entries) {
  if (entries == nullptr) entries = catalog_->entries();
  const auto opened =
      [=, this, done = std::move(done)](absl::StatusOr<ModelSourcePtr> model) {
        if (!model.ok()) return done(model.status());
        const ModelEntry& entry = *entries->models.at(name);
        Sources sources;
        sources.entries = entries;
        sources.model_name = name;
        sources.device = catalog_->DeviceOf(entry);
        sources.model = *std::move(model);
        sources.dtype = entry.spec.dtype;
        sources.bridges = catalog_->bridges(sources.device);
        done(std::move(sources));
      };
  catalog_->AcquireModelSource(entries, name, context, opened);
}

void Engine::Impl::OpenDictionary(const std::string& name,
                                  const RequestContext& context,
                                  Catalog::Done<Sources> done,
                                  EntriesPtr entries) {
  if (entries == nullptr) entries = catalog_->entries();
  const std::string entry = ParseDictionaryName(name).entry;
  const auto opened = [=, this, done = std::move(done)](
                          absl::StatusOr<DictionarySourcePtr> dictionary) {
    if (!dictionary.ok()) return done(dictionary.status());
    const auto with_model = [=](absl::StatusOr<Sources> sources) {
      if (sources.ok()) {
        sources->dictionary_name = name;
        sources->dictionary = *dictionary;
      }
      done(std::move(sources));
    };
    OpenModel(entries->dictionaries.at(entry)->spec.model, context, with_model,
              entries);
  };
  catalog_->AcquireDictionarySource(entries, entry, context, opened);
}

void Engine::Impl::OpenOthers(std::vector<std::string> names,
                              const RequestContext& context, Sources sources,
                              Catalog::Done<Sources> done) {
  // Once each, however often a request names them.
  while (!names.empty() && sources.others.contains(names.back())) {
    names.pop_back();
  }
  if (names.empty()) return done(std::move(sources));
  const std::string name = std::move(names.back());
  names.pop_back();
  const EntriesPtr entries = sources.entries;
  OpenDictionary(
      name, context,
      [=, this](absl::StatusOr<Sources> opened) mutable {
        if (!opened.ok()) return done(opened.status());
        sources.others[name] = {opened->model_name, opened->dictionary};
        OpenOthers(std::move(names), context, std::move(sources), done);
      },
      entries);
}

void Engine::Impl::EstimateTable(AblationTableRequest request,
                                 const RequestContext& context,
                                 Done<AblationTableAnswer> done) {
  Admit<AblationTableAnswer>(
      context, std::move(done), [=, this](Done<AblationTableAnswer> done) {
        if (absl::Status status = CheckAblationTable(request); !status.ok()) {
          return done(status);
        }
        const auto fired = [=, this](absl::StatusOr<FeaturesAnswer> features) {
          if (!features.ok()) return done(features.status());
          const auto ablated = [=](absl::StatusOr<AblateAnswer> ablations) {
            if (!ablations.ok()) return done(ablations.status());
            AblationTableAnswer answer;
            answer.provenance = features->provenance;
            const Estimate& each = *ablations->provenance.estimate;
            // Subtracted, and rebuilt without the latent.
            answer.provenance.estimate =
                *features->provenance.estimate + each + each;
            done(std::move(answer));
          };
          AnalyseAdmitted(AblateAllOf(request), context, ablated, AskAblate,
                          AnswerAblate);
        };
        AnalyseAdmitted(FeaturesFor(request), context, fired, AskFeatures,
                        AnswerFeatures);
      });
}

// Features of all prompts, then the ablations they call for in both modes.
void Engine::Impl::TabulateAblations(AblationTableRequest request,
                                     const RequestContext& context,
                                     Done<AblationTableAnswer> done) {
  const auto ablate = [=, this](AblateRequest ablate, Done<AblateAnswer> then) {
    AnalyseAdmitted(std::move(ablate), context, std::move(then), AskAblate,
                    AnswerAblate);
  };
  if (context.dry_run) {
    return EstimateTable(std::move(request), context, std::move(done));
  }
  // Admitted once: a server that drains finishes a table it has begun.
  const auto admitted = [=, this](Done<AblationTableAnswer> done) {
    if (absl::Status status = CheckAblationTable(request); !status.ok()) {
      return done(status);
    }
    const auto fired = [=](absl::StatusOr<FeaturesAnswer> features) {
      if (!features.ok()) return done(features.status());
      absl::StatusOr<AblationPlan> plan = PlanAblations(request, *features);
      if (!plan.ok()) return done(plan.status());
      if (plan->ablate.prompts.prompts.empty()) {
        return done(Tabulate(*plan, *features, std::nullopt, std::nullopt));
      }
      ablate(plan->ablate, [=](absl::StatusOr<AblateAnswer> subtracted) {
        if (!subtracted.ok()) return done(subtracted.status());
        AblateRequest second = plan->ablate;
        second.mode = analysis::AblateMode::kReconstruct;
        ablate(std::move(second), [=](absl::StatusOr<AblateAnswer> rebuilt) {
          if (!rebuilt.ok()) return done(rebuilt.status());
          done(Tabulate(*plan, *features, *subtracted, *rebuilt));
        });
      });
    };
    AnalyseAdmitted(FeaturesFor(request), context, fired, AskFeatures,
                    AnswerFeatures);
  };
  Admit<AblationTableAnswer>(context, std::move(done), admitted);
}

void Engine::Impl::AddToEstimate(const Estimate& before,
                                 AttributeRequest request,
                                 const RequestContext& context,
                                 Done<AttributeAnswer> done) {
  request.reference.reset();
  AnalyseAdmitted(
      std::move(request), context,
      [=](absl::StatusOr<AttributeAnswer> answer) {
        if (answer.ok()) {
          Estimate& estimate = *answer->provenance.estimate;
          estimate = estimate + before;
        }
        done(std::move(answer));
      },
      AskAttribute, AnswerAttribute);
}

void Engine::Impl::Attribute(AttributeRequest request,
                             const RequestContext& context,
                             Done<AttributeAnswer> done) {
  if (!request.reference.has_value()) {
    return Analyse(std::move(request), context, std::move(done), AskAttribute,
                   AnswerAttribute);
  }
  Admit<AttributeAnswer>(
      context, std::move(done), [=, this](Done<AttributeAnswer> done) {
        const auto averaged =
            [=, this](absl::StatusOr<AttributeAnswer> reference) {
              if (!reference.ok()) return done(reference.status());
              if (context.dry_run) {
                return AddToEstimate(*reference->provenance.estimate, request,
                                     context, done);
              }
              AnalyseAdmitted(WithReference(request, *std::move(reference)),
                              context, done, AskAttribute, AnswerAttribute);
            };
        AnalyseAdmitted(request, context, averaged, AskReference,
                        AnswerReference);
      });
}

void Engine::Impl::CheckDictionary(const std::string& entry,
                                   const RequestContext& context,
                                   std::function<void(absl::Status)> done) {
  const SelfCheckAsk ask = {
      [=, this](ReconstructRequest request, Done<ReconstructAnswer> answer) {
        Analyse(std::move(request), context, std::move(answer), AskReconstruct,
                AnswerReconstruct);
      },
      [=, this](FeaturesRequest request, Done<FeaturesAnswer> answer) {
        Analyse(std::move(request), context, std::move(answer), AskFeatures,
                AnswerFeatures);
      }};
  OpenDictionary(entry, context, [=, this](absl::StatusOr<Sources> sources) {
    if (!sources.ok()) return done(sources.status());
    CheckAgainstManifest(
        entry, *sources->model, sources->dictionary->manifest(), ask,
        [=, this, digest = sources->dictionary->digest()](
            absl::StatusOr<SelfCheckResult> result) {
          if (!result.ok()) return done(result.status());
          catalog_->SetMeasured(entry, digest, *std::move(result));
          done(absl::OkStatus());
        });
  });
}

void Engine::Impl::Drain(absl::Time deadline) {
  if (jobs_ != nullptr) jobs_->Interrupt();
  draining_ = true;
  unasked_.cancelled->store(true);
  if (front_ == nullptr) return;
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return in_flight_ == 0;
  };
  {
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithDeadline(absl::Condition(&idle), deadline);
  }
  ending_ = true;
  catalog_->Stop();
  for (auto& [device, worker] : workers_) worker->Stop();
  if (datasets_ != nullptr) datasets_->Stop();
  if (jobs_ != nullptr) jobs_->Stop();  // nothing it waits for is left
  {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&idle));  // what was ended reports at once
  }
  if (cache_ != nullptr) cache_->Flush();
}

}  // namespace cupola::engine
