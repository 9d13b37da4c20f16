#ifndef CUPOLA_SERVER_ENGINE_CATALOG_ENTRY_H_
#define CUPOLA_SERVER_ENGINE_CATALOG_ENTRY_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/dictionary/dictionary.h"
#include "server/engine/catalog_types.h"
#include "server/engine/load_slot.h"
#include "server/model/model.h"

namespace cupola::engine {

using ModelSourcePtr = std::shared_ptr<const model::ModelSource>;
using ModelPtr = std::shared_ptr<const model::Model>;
using DictionarySourcePtr = std::shared_ptr<const dictionary::DictionarySource>;
using DictionaryPtr = std::shared_ptr<const dictionary::Dictionary>;

// What a catalog holds of one name. The catalog guards its entries; the
// functions below read or change one that its caller has locked.

struct ModelEntry {
  ModelSpec spec;
  LoadSlot<ModelSourcePtr> source;
  std::map<model::Processing, LoadSlot<ModelPtr>> weights;
  bool was_resident = false;
  double load_seconds = 0;
};
struct DictionaryEntry {
  DictionarySpec spec;
  LoadSlot<DictionarySourcePtr> source;
  std::map<dictionary::Half, LoadSlot<DictionaryPtr>> weights;
  bool was_resident = false;
  double load_seconds = 0;
  SelfCheckResult checked;
};

// What an entry's slots say together. Entry: ModelEntry or DictionaryEntry.
template <typename Entry>
State StateOf(const Entry& entry);
template <typename Entry>
int64_t ResidentBytes(const Entry& entry);
// Makes slots that failed empty, so that the next to ask loads them again.
template <typename Entry>
void ForgetFailures(Entry& entry);
// Drops the weights of slots that are not loading.
template <typename Entry>
void DropWeights(Entry& entry);

ModelStatus StatusOf(const ModelEntry& entry);
DictionaryStatus StatusOf(const DictionaryEntry& entry);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_CATALOG_ENTRY_H_
