#ifndef CUPOLA_SERVER_ENGINE_CATALOG_H_
#define CUPOLA_SERVER_ENGINE_CATALOG_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/analysis/bridge_cache.h"
#include "server/dictionary/dictionary.h"
#include "server/engine/catalog_entry.h"
#include "server/engine/catalog_types.h"
#include "server/engine/dictionary_name.h"
#include "server/engine/entries.h"
#include "server/engine/host_copies.h"
#include "server/engine/loader.h"
#include "server/engine/memory_ledger.h"
#include "server/engine/observer.h"
#include "server/engine/room_queue.h"
#include "server/model/model.h"

namespace cupola::engine {

// Where entries compute, and what they may hold there.
struct CatalogOptions {
  Devices devices;
  int64_t device_memory = 0;     // weights on each of them; 0: no limit
  absl::Duration min_residency;  // see residency_policy.h
  int64_t product_bytes = 0;     // of these for bridges(), at most
  int64_t host_memory = 0;       // see host_copies.h
};

// The weights that a request needs, and those that it has been given: it holds
// them until it ends.
struct WantedWeights {
  std::string model;
  std::optional<model::Processing> processing;  // unset: no model's weights
  std::vector<DictionaryUse> dictionaries;
};
struct HeldWeights {
  ModelPtr model;  // null where none is wanted
  std::vector<DictionaryPtr> dictionaries;
};

// The models and dictionaries of a server and what is loaded of them.
//
// An entry has two parts that load apart: its source (config, tokenizer,
// digest; small, kept for good once opened, so that a cached answer needs no
// weights) and its weights, per processing for a model and per half for a
// dictionary. Each loads once however many ask (see Loader), never on a device
// worker, and when there is room for it on its device (see RoomQueue): what has
// been used least recently leaves, models and dictionaries alike. A request
// keeps what it has been given.
//
// The entries may change while the server runs. Whoever answers a request takes
// them once (entries()) and asks for all that he needs with these, so that he
// gets one catalog's.
//
// Every Acquire calls `done` exactly once: at once when the thing is there,
// else when it has been loaded or the request must give up. NOT_FOUND names the
// entries that exist; FAILED_PRECONDITION repeats why an entry could not be
// loaded, until Load tries again; RESOURCE_EXHAUSTED: it does not fit. Any
// thread may call; `done` must not block.
class Catalog : private RoomQueue::Slots {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;

  Catalog(const CatalogSpec& spec, const CatalogOptions& options,
          Observer* observer);

  EntriesPtr entries() const;
  // Other entries from now on (see MakeEntries); those that leave drop their
  // weights. INVALID_ARGUMENT, and the old ones stay: the entry `whole` (empty:
  // none) would be broken.
  struct Change {
    EntriesPtr before, now;
  };
  absl::StatusOr<Change> Set(const CatalogSpec& spec, const std::string& whole);

  void AcquireModelSource(const EntriesPtr& entries, const std::string& name,
                          const RequestContext&, Done<ModelSourcePtr> done);
  void AcquireDictionarySource(const EntriesPtr& entries,
                               const std::string& name, const RequestContext&,
                               Done<DictionarySourcePtr> done);
  // All together: a request that waits for some holds none.
  void AcquireWeights(const EntriesPtr& entries, const WantedWeights& wanted,
                      const RequestContext&, Done<HeldWeights> done);

  // Loads an entry with what it depends on; a failed one is tried again. For a
  // dictionary: all its halves and its model in the processing it declares.
  // Without `evicts`, only where there is room; its files are opened anyway.
  void Load(const std::string& name,
            std::optional<model::Processing> processing, bool evicts,
            const RequestContext&, Done<std::string> done);
  // Drops the weights (of a model: its dictionaries' too). FAILED_PRECONDITION
  // while any of them loads.
  absl::Status Unload(const std::string& name);
  // Of the dictionary with this digest, if it still is the entry's.
  void SetMeasured(const std::string& dictionary, const storage::Digest& digest,
                   SelfCheckResult result);

  std::vector<ModelStatus> Models() const;
  std::vector<DictionaryStatus> Dictionaries() const;
  // A model's or a dictionary's; a dictionary's also by a half's name.
  absl::StatusOr<EntryStatus> Describe(const std::string& name) const;
  absl::StatusOr<DictionaryStatus> DescribeDictionary(
      const std::string& name) const;

  // Where an opened model computes.
  std::string DeviceOf(const ModelEntry& model) const;
  const std::vector<std::string>& devices() const {
    return options_.devices.all;
  }
  std::vector<WeightMemory> Memory() const;
  // Constants of questions between dictionaries, kept on a device beside the
  // weights: they are dropped for weights like any others.
  const std::shared_ptr<analysis::BridgeCache>& bridges(
      const std::string& device) const {
    return bridges_.at(device);
  }

  // Tells everybody who waits UNAVAILABLE and ends the load that runs, which
  // fails. Nothing loads any more.
  void Stop();

 private:
  struct Demanded;
  void OpenWanted(const EntriesPtr& entries, const WantedWeights& wanted,
                  const RequestContext& context,
                  std::function<void(absl::Status)> done);
  void Demand(const EntriesPtr& entries, const WantedWeights& wanted,
              bool evicts, const RequestContext& context,
              Done<HeldWeights> done);
  void LoadModel(const EntriesPtr& entries, ModelEntry& entry,
                 std::optional<model::Processing> processing, bool evicts,
                 const RequestContext& context, Done<std::string> done);
  void LoadDictionary(const EntriesPtr& entries, DictionaryEntry& entry,
                      bool evicts, const RequestContext& context,
                      Done<std::string> done);
  void Place(ModelEntry& entry, const model::ModelSource& source)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // How a slot's weights are loaded into memory that is taken here.
  Loader::Load<ModelPtr> LoadOf(std::shared_ptr<ModelEntry> entry,
                                model::Processing processing)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Loader::Load<DictionaryPtr> LoadOf(std::shared_ptr<DictionaryEntry> entry,
                                     dictionary::Half half)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  template <typename Entry>
  std::function<void(absl::Duration)> CountLoaded(std::shared_ptr<Entry> entry,
                                                  const char* kind);
  // How a source is opened, of files that do not change meanwhile.
  template <typename Source, typename Entry, typename Open>
  absl::StatusOr<Source> OpenUnchanged(Entry& entry, Open open);
  template <typename Entry>
  std::function<void(absl::Duration)> CountOpened(std::shared_ptr<Entry> entry);

  std::vector<Held> HeldOn(const std::string& device) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::shared_ptr<const void> Drop(SlotId id) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const CatalogOptions options_;
  Observer* const observer_;
  const std::shared_ptr<MemoryLedger> ledger_ =
      std::make_shared<MemoryLedger>();
  // By device; the caches never change.
  std::map<std::string, std::shared_ptr<analysis::BridgeCache>> bridges_;
  HostCopies host_copies_{options_.host_memory};
  std::atomic<bool> ends_{false};  // no file is read any more
  mutable absl::Mutex mu_;
  EntriesPtr entries_ ABSL_GUARDED_BY(mu_);
  Loader loader_{&mu_};  // its loads use everything above
  WaitList waiting_;
  RoomQueue room_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_CATALOG_H_
