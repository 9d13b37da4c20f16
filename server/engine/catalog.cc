#include "server/engine/catalog.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/analysis/tensor_io.h"
#include "server/engine/file_stamp.h"
#include "server/model/resident_bound.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

std::string ModelTitle(const std::string& name) {
  return absl::StrCat("model \"", name, "\"");
}
std::string DictionaryTitle(const std::string& name) {
  return absl::StrCat("dictionary \"", name, "\"");
}

// Whether an entry of that name is there and can be served.
absl::Status CheckWhole(const Entries& entries, const std::string& name) {
  const auto model = entries.models.find(name);
  const auto dictionary = entries.dictionaries.find(name);
  absl::Status broken;
  if (model != entries.models.end()) broken = model->second->broken;
  if (dictionary != entries.dictionaries.end()) {
    broken.Update(dictionary->second->broken);
  }
  return broken.ok() ? broken : absl::InvalidArgumentError(broken.message());
}

}  // namespace

Catalog::Catalog(const CatalogSpec& spec, const CatalogOptions& options,
                 Observer* observer)
    : options_(options),
      observer_(observer),
      entries_(MakeEntries(spec, Entries{}, options.devices)),
      room_(&mu_, ledger_, options.device_memory, options.min_residency, this) {
  for (const std::string& device : options_.devices.all) {
    const auto take = [this, device](int64_t bytes) {
      return ledger_->TakeWithin(device, bytes, options_.device_memory);
    };
    bridges_[device] =
        std::make_shared<analysis::BridgeCache>(options_.product_bytes, take);
  }
}

EntriesPtr Catalog::entries() const {
  absl::MutexLock lock(&mu_);
  return entries_;
}

absl::StatusOr<Catalog::Change> Catalog::Set(const CatalogSpec& spec,
                                             const std::string& whole) {
  std::vector<std::shared_ptr<const void>> dropped;  // freed without the lock
  absl::MutexLock lock(&mu_);
  const EntriesPtr now = MakeEntries(spec, *entries_, options_.devices);
  RETURN_IF_ERROR(CheckWhole(*now, whole));
  const Change change = {std::exchange(entries_, now), now};
  const auto leave = [&](const auto& before, const auto& after,
                         const char* kind) {
    for (const auto& [name, entry] : before) {
      const auto kept = after.find(name);
      if (kept != after.end() && kept->second == entry) continue;
      for (auto& weights : DropWeights(*entry)) dropped.push_back(weights);
      observer_->OnResidentBytes(name, kind, 0);
    }
  };
  leave(change.before->models, now->models, "model");
  leave(change.before->dictionaries, now->dictionaries, "dictionary");
  return change;
}

void Catalog::Place(ModelEntry& entry, const model::ModelSource& source) {
  if (!entry.device.empty()) return;
  const at::ScalarType dtype = analysis::ToScalarType(entry.spec.dtype);
  const auto bytes = [dtype](const model::ModelSource& model,
                             const std::string& device) {
    return model::ModelBytesBound(model.config(), dtype, at::Device(device));
  };
  std::vector<DeviceRoom> rooms;
  const std::vector<std::string>& devices = options_.devices.own;
  for (const std::string& device : devices) {
    DeviceRoom& room = rooms.emplace_back();
    room.budget = options_.device_memory;
    for (const auto& [name, other] : entries_->models) {
      if (other->device != device || !other->source.ready()) continue;
      room.placed += bytes(*other->source.value(), device);
    }
  }
  entry.device = devices[ChooseDevice(rooms, bytes(source, devices.front()))];
}

template <typename Source, typename Entry, typename Open>
absl::StatusOr<Source> Catalog::OpenUnchanged(Entry& entry, Open open) {
  const model::ReadMonitor::Scope watched(entry.monitor.get(), &ends_);
  const std::string stamp = FileStamp(entry.spec.path);
  absl::StatusOr<Source> source = open();
  if (!source.ok()) return source;
  RETURN_IF_ERROR(CheckStamp(entry.spec.path, stamp));
  absl::MutexLock lock(&mu_);
  entry.stamp = stamp;
  return source;
}

template <typename Entry>
std::function<void(absl::Duration)> Catalog::CountOpened(
    std::shared_ptr<Entry> entry) {
  return [entry](absl::Duration took) {
    entry->load_seconds += absl::ToDoubleSeconds(took);
  };
}

void Catalog::AcquireModelSource(const EntriesPtr& entries,
                                 const std::string& name,
                                 const RequestContext& context,
                                 Done<ModelSourcePtr> done) {
  const auto found = entries->models.find(name);
  if (found == entries->models.end()) {
    return done(UnknownModel(*entries, name));
  }
  const std::shared_ptr<ModelEntry> entry = found->second;
  if (!entry->broken.ok()) return done(entry->broken);
  const auto open = [this, entry]() -> absl::StatusOr<ModelSourcePtr> {
    const auto source = OpenUnchanged<ModelSourcePtr>(*entry, [&entry] {
      return model::ModelSource::Open(entry->spec.path);
    });
    if (!source.ok()) return source;
    absl::MutexLock lock(&mu_);
    Place(*entry, **source);
    return source;
  };
  loader_.Acquire<ModelSourcePtr>(entry->source,
                                  {ModelTitle(name), open, CountOpened(entry)},
                                  context, std::move(done));
}

void Catalog::AcquireDictionarySource(const EntriesPtr& entries,
                                      const std::string& name,
                                      const RequestContext& context,
                                      Done<DictionarySourcePtr> done) {
  const auto found = entries->dictionaries.find(name);
  if (found == entries->dictionaries.end()) {
    return done(UnknownDictionary(*entries, name));
  }
  const std::shared_ptr<DictionaryEntry> entry = found->second;
  if (!entry->broken.ok()) return done(entry->broken);
  const auto with_model = [=, this, done = std::move(done)](
                              absl::StatusOr<ModelSourcePtr> model) mutable {
    // A model's failure is its dictionaries'; a request's end is its own.
    if (!model.ok() && !absl::IsFailedPrecondition(model.status())) {
      return done(model.status());
    }
    const auto open = [this, entry,
                       model]() -> absl::StatusOr<DictionarySourcePtr> {
      if (!model.ok()) return model.status();
      return OpenUnchanged<DictionarySourcePtr>(*entry, [&] {
        return dictionary::DictionarySource::Open(
            entry->spec.path, entry->spec.overrides, (*model)->config());
      });
    };
    loader_.Acquire<DictionarySourcePtr>(
        entry->source,
        {DictionaryTitle(entry->spec.name), open, CountOpened(entry)}, context,
        std::move(done));
  };
  AcquireModelSource(entries, entry->spec.model, context, with_model);
}

absl::Status Catalog::Unload(const std::string& name) {
  std::vector<std::shared_ptr<const void>> dropped;  // freed without the lock
  absl::MutexLock lock(&mu_);
  const auto drop = [&](auto& entry, const char* kind) {
    for (auto& weights : DropWeights(entry)) dropped.push_back(weights);
    observer_->OnResidentBytes(entry.spec.name, kind, 0);
  };
  const auto model = entries_->models.find(name);
  const auto dictionary = entries_->dictionaries.find(name);
  const bool is_model = model != entries_->models.end();
  if (!is_model && dictionary == entries_->dictionaries.end()) {
    return UnknownEntry(*entries_, name);
  }
  std::vector<DictionaryEntry*> dictionaries;
  if (!is_model) dictionaries = {dictionary->second.get()};
  for (const auto& [other, entry] : entries_->dictionaries) {
    if (is_model && entry->model == model->second) {
      dictionaries.push_back(entry.get());
    }
  }
  bool loading = is_model && IsLoading(*model->second);
  for (const auto* entry : dictionaries) loading |= IsLoading(*entry);
  if (loading) {
    return absl::FailedPreconditionError(absl::StrCat(
        "\"", name, "\" is loading; unload it when it is resident"));
  }
  if (is_model) drop(*model->second, "model");
  for (auto* entry : dictionaries) drop(*entry, "dictionary");
  return absl::OkStatus();
}

void Catalog::Stop() {
  ends_ = true;
  room_.Stop();
  loader_.Stop();
}

void Catalog::SetMeasured(const std::string& dictionary,
                          const storage::Digest& digest,
                          SelfCheckResult result) {
  absl::MutexLock lock(&mu_);
  const auto found = entries_->dictionaries.find(dictionary);
  if (found == entries_->dictionaries.end()) return;
  DictionaryEntry& entry = *found->second;
  if (!entry.source.ready() || entry.source.value()->digest() != digest) return;
  entry.checked = std::move(result);
}

std::vector<ModelStatus> Catalog::Models() const {
  absl::MutexLock lock(&mu_);
  std::vector<ModelStatus> result;
  for (const std::string& name : entries_->model_order) {
    result.push_back(StatusOf(*entries_->models.at(name)));
  }
  return result;
}

std::vector<DictionaryStatus> Catalog::Dictionaries() const {
  absl::MutexLock lock(&mu_);
  std::vector<DictionaryStatus> result;
  for (const std::string& name : entries_->dictionary_order) {
    result.push_back(StatusOf(*entries_->dictionaries.at(name)));
  }
  return result;
}

absl::StatusOr<EntryStatus> Catalog::Describe(const std::string& name) const {
  absl::MutexLock lock(&mu_);
  const auto model = entries_->models.find(name);
  if (model != entries_->models.end()) return StatusOf(*model->second);
  const auto dictionary =
      entries_->dictionaries.find(ParseDictionaryName(name).entry);
  if (dictionary == entries_->dictionaries.end()) {
    return UnknownEntry(*entries_, name);
  }
  return StatusOf(*dictionary->second);
}

absl::StatusOr<DictionaryStatus> Catalog::DescribeDictionary(
    const std::string& name) const {
  absl::MutexLock lock(&mu_);
  const auto found =
      entries_->dictionaries.find(ParseDictionaryName(name).entry);
  if (found == entries_->dictionaries.end()) {
    return UnknownDictionary(*entries_, name);
  }
  return StatusOf(*found->second);
}

std::string Catalog::DeviceOf(const ModelEntry& model) const {
  absl::MutexLock lock(&mu_);
  return model.device;
}

std::vector<WeightMemory> Catalog::Memory() const {
  std::vector<WeightMemory> memory;
  for (const std::string& device : options_.devices.all) {
    memory.push_back(
        {device, ledger_->Of(device).bytes, options_.device_memory});
  }
  return memory;
}

}  // namespace cupola::engine
