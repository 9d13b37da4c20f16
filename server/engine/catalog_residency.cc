// The part of the catalog that is asked for loads, and for room.

#include <memory>
#include <utility>
#include <vector>

#include "server/engine/catalog.h"

namespace cupola::engine {
namespace {

using dictionary::Half;
using model::Processing;

std::vector<Half> HalvesOf(const dictionary::Manifest& manifest) {
  if (manifest.kind == dictionary::Kind::kPair) return {Half::kIn, Half::kOut};
  return {Half::kIn};
}

template <typename T>
Resident ResidentOf(const WeightSlot<T>& slot) {
  Resident resident;
  if (const auto charge = slot.charge.lock()) resident.bytes = charge->bytes();
  resident.loaded_at = slot.loaded_at;
  resident.last_use = slot.last_use;
  resident.in_use = slot.value().use_count() > 1;  // by others than the slot
  return resident;
}

}  // namespace

void Catalog::Load(const std::string& name,
                   std::optional<Processing> processing, bool evicts,
                   const RequestContext& context, Done<std::string> done) {
  const EntriesPtr all = entries();
  const auto report =
      [=, this, done = std::move(done)](absl::StatusOr<std::string> result) {
        if (absl::IsFailedPrecondition(result.status())) {
          observer_->OnLoad(name, false, 0);
        }
        done(std::move(result));
      };
  if (auto found = all->models.find(name); found != all->models.end()) {
    return LoadModel(all, *found->second, processing, evicts, context, report);
  }
  if (auto found = all->dictionaries.find(ParseDictionaryName(name).entry);
      found != all->dictionaries.end()) {
    return LoadDictionary(all, *found->second, evicts, context, report);
  }
  report(UnknownEntry(*all, name));
}

void Catalog::LoadModel(const EntriesPtr& entries, ModelEntry& entry,
                        std::optional<Processing> processing, bool evicts,
                        const RequestContext& context, Done<std::string> done) {
  {
    absl::MutexLock lock(&mu_);
    ForgetFailures(entry);
    for (auto& [name, dictionary] : entries->dictionaries) {
      if (dictionary->model.get() == &entry) ForgetFailures(*dictionary);
    }
  }
  const WantedWeights wanted = {
      entry.spec.name, processing.value_or(Processing::kRaw), {}};
  OpenWanted(entries, wanted, context, [=, this](const absl::Status& opened) {
    if (!opened.ok()) return done(opened);
    Demand(entries, wanted, evicts, context,
           [=](const absl::StatusOr<HeldWeights>& held) {
             if (!held.ok()) return done(held.status());
             done(wanted.model);
           });
  });
}

void Catalog::LoadDictionary(const EntriesPtr& entries, DictionaryEntry& entry,
                             bool evicts, const RequestContext& context,
                             Done<std::string> done) {
  {
    absl::MutexLock lock(&mu_);
    ForgetFailures(*entry.model);
    ForgetFailures(entry);
  }
  const std::string name = entry.spec.name, model = entry.spec.model;
  AcquireDictionarySource(
      entries, name, context,
      [=, this](const absl::StatusOr<DictionarySourcePtr>& source) {
        if (!source.ok()) return done(source.status());
        const dictionary::Manifest& manifest = (*source)->manifest();
        WantedWeights wanted = {model, manifest.processing, {}};
        for (Half half : HalvesOf(manifest)) {
          wanted.dictionaries.push_back({name, half});
        }
        Demand(entries, wanted, evicts, context,
               [=](const absl::StatusOr<HeldWeights>& held) {
                 if (!held.ok()) return done(held.status());
                 done(name);
               });
      });
}

std::vector<RoomQueue::Slots::Held> Catalog::HeldOn(const std::string& device) {
  std::vector<Held> held;
  const auto add = [&held](auto& entry) {
    for (auto& [which, slot] : entry.weights) {
      if (slot.ready()) held.push_back({&slot, ResidentOf(slot)});
    }
  };
  for (const auto& [name, entry] : entries_->models) {
    if (entry->device == device) add(*entry);
  }
  for (const auto& [name, entry] : entries_->dictionaries) {
    if (entry->model->device == device) add(*entry);
  }
  for (const analysis::BridgeCache::Held& bridge : bridges_.at(device)->All()) {
    held.push_back({bridge.id,
                    {.bytes = bridge.bytes,
                     .loaded_at = bridge.made_at,
                     .last_use = bridge.last_use,
                     .in_use = bridge.in_use}});
  }
  return held;
}

std::shared_ptr<const void> Catalog::Drop(SlotId id) {
  std::shared_ptr<const void> dropped;
  const auto drop = [&](auto& entry, const char* kind) {
    for (auto& [which, slot] : entry.weights) {
      if (&slot != id) continue;
      dropped = DropSlot(slot);
      if (ResidentBytes(entry) == 0) entry.load_seconds = 0;
      observer_->OnResidentBytes(entry.spec.name, kind, ResidentBytes(entry));
    }
  };
  for (const auto& [name, entry] : entries_->models) drop(*entry, "model");
  for (const auto& [name, entry] : entries_->dictionaries) {
    drop(*entry, "dictionary");
  }
  for (const auto& [device, bridges] : bridges_) {
    if (dropped != nullptr) break;
    const analysis::BridgeCache::Dropped bridge = bridges->Drop(id);
    if (bridge.room != nullptr) {
      std::static_pointer_cast<MemoryLedger::Charge>(bridge.room)->Leave();
    }
    dropped = bridge.bridge;
  }
  return dropped;
}

}  // namespace cupola::engine
