#ifndef CUPOLA_SERVER_ENGINE_CATALOG_H_
#define CUPOLA_SERVER_ENGINE_CATALOG_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/dictionary/dictionary.h"
#include "server/engine/catalog_entry.h"
#include "server/engine/catalog_types.h"
#include "server/engine/dictionary_name.h"
#include "server/engine/loader.h"
#include "server/engine/observer.h"
#include "server/model/model.h"

namespace cupola::engine {

// The models and dictionaries of a server and what is loaded of them.
//
// An entry has two parts that load apart: its source (config, tokenizer,
// digest; small, kept for good once opened, so that a cached answer needs no
// weights) and its weights, per processing for a model and per half for a
// dictionary. Each loads once however many ask (see Loader), never on a device
// worker.
//
// Every Acquire calls `done` exactly once: at once when the thing is there,
// else when it has been loaded or the request must give up. NOT_FOUND names the
// entries that exist; FAILED_PRECONDITION repeats why an entry could not be
// loaded, until Load tries again. Any thread may call; `done` must not block.
class Catalog {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;

  // INVALID_ARGUMENT: duplicate or empty names, a dictionary of an unknown
  // model, an unknown device. `default_device` is a torch device.
  static absl::StatusOr<std::unique_ptr<Catalog>> Create(
      const CatalogSpec& spec, const std::string& default_device,
      Observer* observer);

  void AcquireModelSource(const std::string& name, const RequestContext&,
                          Done<ModelSourcePtr> done);
  void AcquireModel(const std::string& name, model::Processing processing,
                    const RequestContext&, Done<ModelPtr> done);
  void AcquireDictionarySource(const std::string& entry, const RequestContext&,
                               Done<DictionarySourcePtr> done);
  void AcquireDictionary(const std::string& entry, dictionary::Half half,
                         const RequestContext&, Done<DictionaryPtr> done);

  // Loads an entry with what it depends on; a failed one is tried again. For a
  // dictionary: all its halves and its model in the processing it declares.
  void Load(const std::string& name,
            std::optional<model::Processing> processing, const RequestContext&,
            Done<std::string> done);
  // Drops the weights (of a model: its dictionaries' too). FAILED_PRECONDITION
  // while the entry loads.
  absl::Status Unload(const std::string& name);
  void SetMeasured(const std::string& dictionary, SelfCheckResult result);

  std::vector<ModelStatus> Models() const;
  std::vector<DictionaryStatus> Dictionaries() const;
  // A model's or a dictionary's; a dictionary's also by a half's name.
  absl::StatusOr<EntryStatus> Describe(const std::string& name) const;
  absl::StatusOr<DictionaryStatus> DescribeDictionary(
      const std::string& name) const;

  // Tells everybody who waits UNAVAILABLE and lets a load that runs finish.
  // Nothing loads any more.
  void Stop();

  // The device an entry's model computes on. REQUIRES: the entry exists.
  const std::string& DeviceOf(const std::string& model) const;
  storage::DType DtypeOf(const std::string& model) const;
  // The model of a dictionary entry. REQUIRES: the entry exists.
  const std::string& ModelOf(const std::string& dictionary) const;
  std::vector<std::string> Devices() const;

 private:
  Catalog(std::string default_device, Observer* observer);
  absl::Status Add(const CatalogSpec& spec);
  absl::Status UnknownModel(const std::string& name) const;
  absl::Status UnknownDictionary(const std::string& name) const;
  absl::Status UnknownEntry(const std::string& name) const;
  void LoadModel(ModelEntry& entry, std::optional<model::Processing> processing,
                 const RequestContext& context, Done<std::string> done);
  void LoadDictionary(DictionaryEntry& entry, const RequestContext& context,
                      Done<std::string> done);
  void Drop(DictionaryEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What a load's `loaded` does: notes how long it took, and what is resident
  // now.
  template <typename Entry>
  std::function<void(absl::Duration)> CountOpened(Entry& entry);
  template <typename Entry>
  std::function<void(absl::Duration)> CountLoaded(Entry& entry,
                                                  const char* kind);

  const std::string default_device_;
  Observer* const observer_;
  mutable absl::Mutex mu_;
  // The maps themselves never change after Create; their entries do.
  std::map<std::string, ModelEntry> models_;
  std::map<std::string, DictionaryEntry> dictionaries_;
  std::vector<std::string> model_order_, dictionary_order_;
  Loader loader_{&mu_};  // last: its loads use everything above
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_CATALOG_H_
