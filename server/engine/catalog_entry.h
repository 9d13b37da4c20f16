#ifndef CUPOLA_SERVER_ENGINE_CATALOG_ENTRY_H_
#define CUPOLA_SERVER_ENGINE_CATALOG_ENTRY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/dictionary/dictionary.h"
#include "server/engine/catalog_types.h"
#include "server/engine/load_slot.h"
#include "server/engine/memory_ledger.h"
#include "server/model/model.h"
#include "server/model/read_monitor.h"

namespace cupola::engine {

using ModelSourcePtr = std::shared_ptr<const model::ModelSource>;
using ModelPtr = std::shared_ptr<const model::Model>;
using DictionarySourcePtr = std::shared_ptr<const dictionary::DictionarySource>;
using DictionaryPtr = std::shared_ptr<const dictionary::Dictionary>;

// What a catalog holds of one name. Specs never change; the catalog guards the
// rest, and the functions below read or change an entry that its caller has
// locked.

// Weights: a slot, and what residency asks about it.
template <typename T>
struct WeightSlot : LoadSlot<T> {
  absl::Time loaded_at, last_use;
  int64_t measured_bytes = 0;  // when they were loaded last
  // The memory counted for them; gone with its last user.
  std::weak_ptr<MemoryLedger::Charge> charge;
};

struct ModelEntry {
  ModelSpec spec;
  // Where it computes: what the spec names, else chosen when it is opened.
  std::string device;
  // FAILED_PRECONDITION: the catalog contradicts itself about it, so that
  // nothing is ever opened. Never changes.
  absl::Status broken;
  LoadSlot<ModelSourcePtr> source;
  std::string stamp;  // of the files that were opened
  std::map<model::Processing, WeightSlot<ModelPtr>> weights;
  bool was_resident = false;
  double load_seconds = 0;
  // Of its files, and how far it was when the load began that runs now.
  std::shared_ptr<model::ReadMonitor> monitor =
      std::make_shared<model::ReadMonitor>();
  int64_t load_began = 0;
};
struct DictionaryEntry {
  DictionarySpec spec;
  std::shared_ptr<ModelEntry> model;  // of a broken entry maybe in no catalog
  absl::Status broken;                // as a model's
  LoadSlot<DictionarySourcePtr> source;
  std::string stamp;
  std::map<dictionary::Half, WeightSlot<DictionaryPtr>> weights;
  bool was_resident = false;
  double load_seconds = 0;
  std::shared_ptr<model::ReadMonitor> monitor =
      std::make_shared<model::ReadMonitor>();
  int64_t load_began = 0;
  SelfCheckResult checked;
};

// A catalog of one moment. What has been taken from it serves a request to its
// end, whatever is registered, replaced or removed meanwhile.
struct Entries {
  std::map<std::string, std::shared_ptr<ModelEntry>> models;
  std::map<std::string, std::shared_ptr<DictionaryEntry>> dictionaries;
  std::vector<std::string> model_order, dictionary_order;
};
using EntriesPtr = std::shared_ptr<const Entries>;

// What an entry's slots say together. Entry: ModelEntry or DictionaryEntry.
template <typename Entry>
State StateOf(const Entry& entry);
// Whether any part of it is being opened or loaded.
template <typename Entry>
bool IsLoading(const Entry& entry);
template <typename Entry>
int64_t ResidentBytes(const Entry& entry);
// Makes slots that failed empty, so that the next to ask loads them again.
template <typename Entry>
void ForgetFailures(Entry& entry);
// Empties the slots that are not loading. The weights go with the pointers
// returned, which are not to be freed under a lock, or with their last user.
template <typename Entry>
std::vector<std::shared_ptr<const void>> DropWeights(Entry& entry);
// The same of one slot. REQUIRES: it is ready.
template <typename T>
std::shared_ptr<const void> DropSlot(WeightSlot<T>& slot);

ModelStatus StatusOf(const ModelEntry& entry);
DictionaryStatus StatusOf(const DictionaryEntry& entry);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_CATALOG_ENTRY_H_
