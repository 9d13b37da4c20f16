// The part of the catalog that loads weights.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/analysis/tensor_io.h"
#include "server/dictionary/resident_bound.h"
#include "server/engine/catalog.h"
#include "server/engine/file_stamp.h"
#include "server/engine/join.h"
#include "server/model/heap.h"
#include "server/model/resident_bound.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

using dictionary::Half;
using model::Processing;

// What weights take: as measured when they were loaded last, else at the most.
// REQUIRES: the entry's source is there.
int64_t BytesOf(ModelEntry& entry, Processing processing) {
  const int64_t measured = entry.weights[processing].measured_bytes;
  if (measured > 0) return measured;
  return model::ModelBytesBound(entry.source.value()->config(),
                                analysis::ToScalarType(entry.spec.dtype),
                                at::Device(entry.device));
}
int64_t BytesOf(DictionaryEntry& entry, Half half) {
  const int64_t measured = entry.weights[half].measured_bytes;
  if (measured > 0) return measured;
  return dictionary::DictionaryBytesBound(entry.source.value()->manifest(),
                                          at::Device(entry.model->device));
}

template <typename T>
bool Lacks(const WeightSlot<T>& slot) {
  return !slot.ready() && !slot.loading() && !slot.failed();
}

bool Has(const Entries& entries, const std::shared_ptr<ModelEntry>& entry) {
  const auto found = entries.models.find(entry->spec.name);
  return found != entries.models.end() && found->second == entry;
}
bool Has(const Entries& entries,
         const std::shared_ptr<DictionaryEntry>& entry) {
  const auto found = entries.dictionaries.find(entry->spec.name);
  return found != entries.dictionaries.end() && found->second == entry;
}

std::string TitleOf(const WantedWeights& wanted) {
  std::vector<std::string> parts;
  if (wanted.processing.has_value()) {
    parts.push_back(absl::StrCat("model \"", wanted.model, "\""));
  }
  for (const DictionaryUse& use : wanted.dictionaries) {
    std::string part = absl::StrCat("dictionary \"", use.entry, "\"");
    if (std::count(parts.begin(), parts.end(), part) == 0) {
      parts.push_back(std::move(part));
    }
  }
  return absl::StrJoin(parts, " with ");
}

}  // namespace

// A request's weights: which they are, and those that it has got. The entries
// are locked; `held` belongs to the parts that report, then to the last one.
struct Catalog::Demanded {
  std::shared_ptr<ModelEntry> model;
  Processing processing = Processing::kRaw;
  struct Use {
    std::shared_ptr<DictionaryEntry> entry;
    Half half;
  };
  std::vector<Use> dictionaries;
  HeldWeights held;

  // Calls `visit(entry, which, slot, target)` for each.
  template <typename Visit>
  void ForEach(Visit visit) {
    if (model != nullptr) {
      visit(model, processing, model->weights[processing], &held.model);
    }
    for (size_t i = 0; i < dictionaries.size(); ++i) {
      const Use& use = dictionaries[i];
      visit(use.entry, use.half, use.entry->weights[use.half],
            &held.dictionaries[i]);
    }
  }

  // Of the slots of which `counts` is true, each once.
  template <typename Counts>
  int64_t Bytes(Counts counts) {
    std::vector<SlotId> seen;
    int64_t bytes = 0;
    ForEach([&](const auto& entry, auto which, auto& slot, auto*) {
      if (!counts(slot)) return;
      if (std::count(seen.begin(), seen.end(), &slot) > 0) return;
      seen.push_back(&slot);
      bytes += BytesOf(*entry, which);
    });
    return bytes;
  }

  int parts() const {
    return static_cast<int>(dictionaries.size()) + (model != nullptr ? 1 : 0);
  }
};

template <typename Entry>
std::function<void(absl::Duration)> Catalog::CountLoaded(
    std::shared_ptr<Entry> entry, const char* kind) {
  return [this, entry,
          kind](absl::Duration took) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!Has(*entries_, entry)) {
      // It has left the catalog meanwhile, so that nobody could evict it. Who
      // waits for it gets it all the same; the loader holds it until then.
      DropWeights(*entry);
      return;
    }
    entry->was_resident = true;
    entry->load_seconds += absl::ToDoubleSeconds(took);
    observer_->OnLoad(entry->spec.name, true, absl::ToDoubleSeconds(took));
    observer_->OnResidentBytes(entry->spec.name, kind, ResidentBytes(*entry));
  };
}

Loader::Load<ModelPtr> Catalog::LoadOf(std::shared_ptr<ModelEntry> entry,
                                       Processing processing) {
  WeightSlot<ModelPtr>& slot = entry->weights[processing];
  const auto charge = ledger_->Take(entry->device, BytesOf(*entry, processing));
  slot.charge = charge;
  entry->load_began = entry->monitor->bytes();
  const auto work = [this, entry, processing, charge, &slot,
                     device = at::Device(entry->device), stamp = entry->stamp,
                     source =
                         entry->source.value()]() -> absl::StatusOr<ModelPtr> {
    // The digest is that of the files that were opened: others are not loaded
    // under it.
    RETURN_IF_ERROR(CheckStamp(entry->spec.path, stamp));
    const model::ReadMonitor::Scope watched(entry->monitor.get(), &ends_);
    absl::StatusOr<ModelPtr> loaded = model::Model::Load(
        source,
        {processing, analysis::ToScalarType(entry->spec.dtype), device});
    model::ReturnFreeMemory();
    if (!loaded.ok()) return loaded;
    RETURN_IF_ERROR(CheckStamp(entry->spec.path, stamp));
    const int64_t bytes = (*loaded)->resident_bytes();
    charge->Resize(bytes);
    absl::MutexLock lock(&mu_);
    slot.measured_bytes = bytes;
    slot.loaded_at = slot.last_use = absl::Now();
    return Charged(*std::move(loaded), charge);
  };
  return {absl::StrCat("model \"", entry->spec.name, "\""), work,
          CountLoaded(entry, "model")};
}

Loader::Load<DictionaryPtr> Catalog::LoadOf(
    std::shared_ptr<DictionaryEntry> entry, Half half) {
  WeightSlot<DictionaryPtr>& slot = entry->weights[half];
  const std::string& device = entry->model->device;
  const auto charge = ledger_->Take(device, BytesOf(*entry, half));
  slot.charge = charge;
  entry->load_began = entry->monitor->bytes();
  const auto work =
      [this, entry, half, charge, &slot, device = at::Device(device),
       stamp = entry->stamp,
       source = entry->source.value()]() -> absl::StatusOr<DictionaryPtr> {
    const bool reads = !host_copies_.Has(*source, half);
    if (reads) RETURN_IF_ERROR(CheckStamp(entry->spec.path, stamp));
    const model::ReadMonitor::Scope watched(entry->monitor.get(), &ends_);
    absl::StatusOr<DictionaryPtr> loaded =
        host_copies_.Load(source, half, device);
    model::ReturnFreeMemory();
    if (!loaded.ok()) return loaded;
    if (reads) RETURN_IF_ERROR(CheckStamp(entry->spec.path, stamp));
    const int64_t bytes = (*loaded)->resident_bytes() +
                          dictionary::KeptColumnBytes(source->manifest());
    charge->Resize(bytes);
    absl::MutexLock lock(&mu_);
    slot.measured_bytes = bytes;
    slot.loaded_at = slot.last_use = absl::Now();
    return Charged(*std::move(loaded), charge);
  };
  return {absl::StrCat("dictionary \"", entry->spec.name, "\""), work,
          CountLoaded(entry, "dictionary")};
}

void Catalog::OpenWanted(const EntriesPtr& entries, const WantedWeights& wanted,
                         const RequestContext& context,
                         std::function<void(absl::Status)> done) {
  const auto part =
      Join(static_cast<int>(wanted.dictionaries.size()) + 1, std::move(done));
  if (wanted.processing.has_value()) {
    AcquireModelSource(
        entries, wanted.model, context,
        [part](absl::StatusOr<ModelSourcePtr> s) { part(s.status()); });
  } else {
    part(absl::OkStatus());
  }
  for (const DictionaryUse& use : wanted.dictionaries) {
    AcquireDictionarySource(
        entries, use.entry, context,
        [part](absl::StatusOr<DictionarySourcePtr> s) { part(s.status()); });
  }
}

void Catalog::AcquireWeights(const EntriesPtr& entries,
                             const WantedWeights& wanted,
                             const RequestContext& context,
                             Done<HeldWeights> done) {
  OpenWanted(entries, wanted, context, [=, this](const absl::Status& opened) {
    if (!opened.ok()) return done(opened);
    Demand(entries, wanted, /*evicts=*/true, context, done);
  });
}

void Catalog::Demand(const EntriesPtr& entries, const WantedWeights& wanted,
                     bool evicts, const RequestContext& context,
                     Done<HeldWeights> done) {
  auto demanded = std::make_shared<Demanded>();
  if (wanted.processing.has_value()) {
    demanded->model = entries->models.at(wanted.model);
    demanded->processing = *wanted.processing;
  }
  for (const DictionaryUse& use : wanted.dictionaries) {
    demanded->dictionaries.push_back(
        {entries->dictionaries.at(use.entry), use.half});
  }
  demanded->held.dictionaries.resize(demanded->dictionaries.size());
  if (demanded->parts() == 0) return done(HeldWeights{});

  RoomQueue::Demand demand;
  bool ready = true;
  {
    absl::MutexLock lock(&mu_);
    const absl::Time now = absl::Now();
    demanded->ForEach([&](const auto&, auto, auto& slot, auto* target) {
      demand.slots.push_back(&slot);
      slot.last_use = now;
      ready &= slot.ready();
      if (ready) *target = slot.value();
    });
    demand.device = demanded->model != nullptr
                        ? demanded->model->device
                        : demanded->dictionaries[0].entry->model->device;
  }
  if (ready) return done(std::move(demanded->held));
  // Nothing is held while this waits.
  demanded->held.model = nullptr;
  for (DictionaryPtr& dictionary : demanded->held.dictionaries) {
    dictionary = nullptr;
  }
  done = waiting_.Add<HeldWeights>(context, std::move(done));
  demand.what = TitleOf(wanted);
  demand.context = context;
  demand.evicts = evicts;
  demand.missing = [demanded] {
    return demanded->Bytes([](const auto& slot) { return Lacks(slot); });
  };
  demand.total = [demanded] {
    return demanded->Bytes([](const auto&) { return true; });
  };
  demand.refuse = [done](const absl::Status& status) { done(status); };
  demand.start =
      [=, this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) -> std::function<void()> {
    const auto part =
        Join(demanded->parts(), [demanded, done](const absl::Status& status) {
          if (!status.ok()) return done(status);
          done(std::move(demanded->held));
        });
    std::vector<absl::Status> settled;
    demanded->ForEach([&](const auto& entry, auto which, auto& slot,
                          auto* target) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      slot.last_use = absl::Now();
      using Pointer = std::remove_reference_t<decltype(*target)>;
      if (slot.ready()) {
        *target = slot.value();
        settled.push_back(absl::OkStatus());
        return;
      }
      if (slot.failed()) {
        settled.push_back(slot.status());
        return;
      }
      const auto loaded = [demanded, part,
                           target](absl::StatusOr<Pointer> got) {
        if (got.ok()) *target = *got;
        part(got.status());
      };
      Loader::Load<Pointer> load;
      if (!slot.loading()) load = LoadOf(entry, which);
      if (!loader_.Join<Pointer>(slot, std::move(load), context, loaded)) {
        settled.push_back(
            absl::UnavailableError("the server is shutting down"));
      }
    });
    return [part, settled] {
      for (const absl::Status& status : settled) part(status);
    };
  };
  room_.Push(std::move(demand));
}

}  // namespace cupola::engine
