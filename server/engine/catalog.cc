#include "server/engine/catalog.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/analysis/tensor_io.h"
#include "server/engine/join.h"
#include "server/engine/numerics.h"
#include "server/model/heap.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using dictionary::Half;
using model::Processing;

std::vector<Half> HalvesOf(const dictionary::Manifest& manifest) {
  if (manifest.kind == dictionary::Kind::kPair) return {Half::kIn, Half::kOut};
  return {Half::kIn};
}

template <typename Map>
std::string Names(const Map& map) {
  return absl::StrJoin(map, ", ", [](std::string* out, const auto& item) {
    absl::StrAppend(out, item.first);
  });
}

std::string ModelTitle(const std::string& name) {
  return absl::StrCat("model \"", name, "\"");
}
std::string DictionaryTitle(const std::string& name) {
  return absl::StrCat("dictionary \"", name, "\"");
}

}  // namespace

Catalog::Catalog(std::string default_device, Observer* observer)
    : default_device_(std::move(default_device)), observer_(observer) {}

absl::StatusOr<std::unique_ptr<Catalog>> Catalog::Create(
    const CatalogSpec& spec, const std::string& default_device,
    Observer* observer) {
  std::unique_ptr<Catalog> catalog(new Catalog(default_device, observer));
  RETURN_IF_ERROR(catalog->Add(spec));
  return catalog;
}

absl::Status Catalog::Add(const CatalogSpec& spec) {
  for (const ModelSpec& model : spec.models) {
    if (model.name.empty()) {
      return absl::InvalidArgumentError("catalog: a model has no name");
    }
    ModelEntry& entry = models_[model.name];
    if (!entry.spec.name.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("catalog: model \"", model.name, "\" appears twice"));
    }
    entry.spec = model;
    entry.spec.device =
        model.device.empty() ? default_device_ : ResolveDevice(model.device);
    if (entry.spec.device.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("catalog: model \"", model.name, "\": no device \"",
                       model.device, "\" here"));
    }
    model_order_.push_back(model.name);
  }
  for (const DictionarySpec& dictionary : spec.dictionaries) {
    const std::string& name = dictionary.name;
    if (name.empty() || ParseDictionaryName(name).names_half) {
      return absl::InvalidArgumentError(
          absl::StrCat("catalog: \"", name,
                       "\" is no name for a dictionary (a pair's halves are "
                       "called NAME:in and NAME:out)"));
    }
    if (models_.count(dictionary.model) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("catalog: dictionary \"", name, "\" names model \"",
                       dictionary.model, "\"; there are: ", Names(models_)));
    }
    DictionaryEntry& entry = dictionaries_[name];
    if (!entry.spec.name.empty() || models_.count(name) > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("catalog: the name \"", name, "\" appears twice"));
    }
    entry.spec = dictionary;
    dictionary_order_.push_back(name);
  }
  return absl::OkStatus();
}

absl::Status Catalog::UnknownModel(const std::string& name) const {
  return absl::NotFoundError(
      absl::StrCat("no model \"", name, "\"; there are: ", Names(models_)));
}

absl::Status Catalog::UnknownDictionary(const std::string& name) const {
  return absl::NotFoundError(absl::StrCat(
      "no dictionary \"", name, "\"; there are: ", Names(dictionaries_),
      " (of a pair also NAME:in, NAME:out)"));
}

absl::Status Catalog::UnknownEntry(const std::string& name) const {
  std::vector<std::string> names = model_order_;
  names.insert(names.end(), dictionary_order_.begin(), dictionary_order_.end());
  return absl::NotFoundError(
      absl::StrCat("name is \"", name, "\"; the catalog has ",
                   names.empty() ? "no entries" : absl::StrJoin(names, ", ")));
}

template <typename Entry>
std::function<void(absl::Duration)> Catalog::CountOpened(Entry& entry) {
  return [this, &entry](absl::Duration took) {
    absl::MutexLock lock(&mu_);
    entry.load_seconds += absl::ToDoubleSeconds(took);
  };
}

template <typename Entry>
std::function<void(absl::Duration)> Catalog::CountLoaded(Entry& entry,
                                                         const char* kind) {
  return [this, &entry, kind](absl::Duration took) {
    model::ReturnFreeMemory();
    absl::MutexLock lock(&mu_);
    entry.was_resident = true;
    entry.load_seconds += absl::ToDoubleSeconds(took);
    observer_->OnLoad(entry.spec.name, true, absl::ToDoubleSeconds(took));
    observer_->OnResidentBytes(entry.spec.name, kind, ResidentBytes(entry));
  };
}

void Catalog::AcquireModelSource(const std::string& name,
                                 const RequestContext& context,
                                 Done<ModelSourcePtr> done) {
  auto found = models_.find(name);
  if (found == models_.end()) return done(UnknownModel(name));
  ModelEntry& entry = found->second;
  loader_.Acquire<ModelSourcePtr>(
      entry.source,
      {ModelTitle(name),
       [&entry] { return model::ModelSource::Open(entry.spec.path); },
       CountOpened(entry)},
      context, std::move(done));
}

void Catalog::AcquireModel(const std::string& name, Processing processing,
                           const RequestContext& context, Done<ModelPtr> done) {
  const auto opened = [=, this, done = std::move(done)](
                          absl::StatusOr<ModelSourcePtr> source) mutable {
    if (!source.ok()) return done(source.status());
    ModelEntry& entry = models_.at(name);
    LoadSlot<ModelPtr>* slot;
    {
      absl::MutexLock lock(&mu_);
      slot = &entry.weights[processing];
    }
    const auto work = [=, &entry, source = *source] {
      return model::Model::Load(
          source, {processing, analysis::ToScalarType(entry.spec.dtype),
                   at::Device(entry.spec.device)});
    };
    loader_.Acquire<ModelPtr>(
        *slot, {ModelTitle(name), work, CountLoaded(entry, "model")}, context,
        std::move(done));
  };
  AcquireModelSource(name, context, opened);
}

void Catalog::AcquireDictionarySource(const std::string& name,
                                      const RequestContext& context,
                                      Done<DictionarySourcePtr> done) {
  auto found = dictionaries_.find(name);
  if (found == dictionaries_.end()) return done(UnknownDictionary(name));
  DictionaryEntry& entry = found->second;
  const auto opened = [=, this, &entry, done = std::move(done)](
                          absl::StatusOr<ModelSourcePtr> model) mutable {
    // A model's failure is its dictionaries'; a request's end is its own.
    if (!model.ok() && !absl::IsFailedPrecondition(model.status())) {
      return done(model.status());
    }
    const auto work = [&entry, model]() -> absl::StatusOr<DictionarySourcePtr> {
      if (!model.ok()) return model.status();
      return dictionary::DictionarySource::Open(
          entry.spec.path, entry.spec.overrides, (*model)->config());
    };
    loader_.Acquire<DictionarySourcePtr>(
        entry.source, {DictionaryTitle(name), work, CountOpened(entry)},
        context, std::move(done));
  };
  AcquireModelSource(entry.spec.model, context, opened);
}

void Catalog::AcquireDictionary(const std::string& name, Half half,
                                const RequestContext& context,
                                Done<DictionaryPtr> done) {
  const auto opened = [=, this, done = std::move(done)](
                          absl::StatusOr<DictionarySourcePtr> source) mutable {
    if (!source.ok()) return done(source.status());
    DictionaryEntry& entry = dictionaries_.at(name);
    LoadSlot<DictionaryPtr>* slot;
    {
      absl::MutexLock lock(&mu_);
      slot = &entry.weights[half];
    }
    const auto work = [=, this, &entry, source = *source] {
      return dictionary::Dictionary::Load(
          source, half, at::Device(DeviceOf(entry.spec.model)));
    };
    loader_.Acquire<DictionaryPtr>(
        *slot, {DictionaryTitle(name), work, CountLoaded(entry, "dictionary")},
        context, std::move(done));
  };
  AcquireDictionarySource(name, context, opened);
}

void Catalog::Load(const std::string& name,
                   std::optional<Processing> processing,
                   const RequestContext& context, Done<std::string> done) {
  const auto report =
      [=, this, done = std::move(done)](absl::StatusOr<std::string> result) {
        if (absl::IsFailedPrecondition(result.status())) {
          observer_->OnLoad(name, false, 0);
        }
        done(std::move(result));
      };
  if (auto found = models_.find(name); found != models_.end()) {
    return LoadModel(found->second, processing, context, report);
  }
  if (auto found = dictionaries_.find(name); found != dictionaries_.end()) {
    return LoadDictionary(found->second, context, report);
  }
  done(UnknownEntry(name));
}

void Catalog::LoadModel(ModelEntry& entry, std::optional<Processing> processing,
                        const RequestContext& context, Done<std::string> done) {
  {
    absl::MutexLock lock(&mu_);
    ForgetFailures(entry);
    for (auto& [name, dictionary] : dictionaries_) {
      if (dictionary.spec.model == entry.spec.name) ForgetFailures(dictionary);
    }
  }
  AcquireModel(
      entry.spec.name, processing.value_or(Processing::kRaw), context,
      [&entry, done = std::move(done)](absl::StatusOr<ModelPtr> model) {
        if (!model.ok()) return done(model.status());
        done(entry.spec.name);
      });
}

void Catalog::LoadDictionary(DictionaryEntry& entry,
                             const RequestContext& context,
                             Done<std::string> done) {
  {
    absl::MutexLock lock(&mu_);
    ForgetFailures(models_.at(entry.spec.model));
    ForgetFailures(entry);
  }
  AcquireDictionarySource(
      entry.spec.name, context,
      [=, this, &entry,
       done = std::move(done)](absl::StatusOr<DictionarySourcePtr> source) {
        if (!source.ok()) return done(source.status());
        const dictionary::Manifest& manifest = (*source)->manifest();
        const std::vector<Half> halves = HalvesOf(manifest);
        const auto part = Join(static_cast<int>(halves.size()) + 1,
                               [&entry, done](absl::Status s) {
                                 if (!s.ok()) return done(s);
                                 done(entry.spec.name);
                               });
        AcquireModel(
            entry.spec.model, manifest.processing, context,
            [part](absl::StatusOr<ModelPtr> model) { part(model.status()); });
        for (Half half : halves) {
          AcquireDictionary(entry.spec.name, half, context,
                            [part](absl::StatusOr<DictionaryPtr> loaded) {
                              part(loaded.status());
                            });
        }
      });
}

void Catalog::Drop(DictionaryEntry& entry) {
  DropWeights(entry);
  observer_->OnResidentBytes(entry.spec.name, "dictionary", 0);
}

absl::Status Catalog::Unload(const std::string& name) {
  absl::MutexLock lock(&mu_);
  auto dictionary = dictionaries_.find(name);
  auto model = models_.find(name);
  const State state = model != models_.end() ? StateOf(model->second)
                      : dictionary != dictionaries_.end()
                          ? StateOf(dictionary->second)
                          : State::kRegistered;
  if (state == State::kLoading) {
    return absl::FailedPreconditionError(absl::StrCat(
        "\"", name, "\" is loading; unload it when it is resident"));
  }
  if (dictionary != dictionaries_.end()) {
    Drop(dictionary->second);
    return absl::OkStatus();
  }
  if (model == models_.end()) return UnknownEntry(name);
  DropWeights(model->second);
  observer_->OnResidentBytes(name, "model", 0);
  for (auto& [other, entry] : dictionaries_) {
    if (entry.spec.model == name) Drop(entry);
  }
  return absl::OkStatus();
}

void Catalog::Stop() { loader_.Stop(); }

void Catalog::SetMeasured(const std::string& dictionary,
                          SelfCheckResult result) {
  absl::MutexLock lock(&mu_);
  dictionaries_.at(dictionary).checked = std::move(result);
}

std::vector<ModelStatus> Catalog::Models() const {
  absl::MutexLock lock(&mu_);
  std::vector<ModelStatus> result;
  for (const std::string& name : model_order_) {
    result.push_back(StatusOf(models_.at(name)));
  }
  return result;
}

std::vector<DictionaryStatus> Catalog::Dictionaries() const {
  absl::MutexLock lock(&mu_);
  std::vector<DictionaryStatus> result;
  for (const std::string& name : dictionary_order_) {
    result.push_back(StatusOf(dictionaries_.at(name)));
  }
  return result;
}

absl::StatusOr<EntryStatus> Catalog::Describe(const std::string& name) const {
  if (auto found = models_.find(name); found != models_.end()) {
    absl::MutexLock lock(&mu_);
    return StatusOf(found->second);
  }
  absl::StatusOr<DictionaryStatus> dictionary = DescribeDictionary(name);
  if (!dictionary.ok()) return UnknownEntry(name);
  return *std::move(dictionary);
}

absl::StatusOr<DictionaryStatus> Catalog::DescribeDictionary(
    const std::string& name) const {
  auto found = dictionaries_.find(ParseDictionaryName(name).entry);
  if (found == dictionaries_.end()) return UnknownDictionary(name);
  absl::MutexLock lock(&mu_);
  return StatusOf(found->second);
}

const std::string& Catalog::DeviceOf(const std::string& model) const {
  return models_.at(model).spec.device;
}

storage::DType Catalog::DtypeOf(const std::string& model) const {
  return models_.at(model).spec.dtype;
}

const std::string& Catalog::ModelOf(const std::string& dictionary) const {
  return dictionaries_.at(dictionary).spec.model;
}

std::vector<std::string> Catalog::Devices() const {
  std::set<std::string> devices = {default_device_};
  for (const auto& [name, entry] : models_) devices.insert(entry.spec.device);
  return {devices.begin(), devices.end()};
}

}  // namespace cupola::engine
