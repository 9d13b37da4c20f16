#ifndef CUPOLA_SERVER_ENGINE_CATALOG_TYPES_H_
#define CUPOLA_SERVER_ENGINE_CATALOG_TYPES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "server/dictionary/manifest.h"
#include "server/model/hook_point.h"
#include "server/model/model_config.h"
#include "storage/array.h"
#include "storage/digest.h"

// Plain structs of the catalog: what the file says (specs) and what a server
// tells about its entries (statuses).

namespace cupola::engine {

struct ModelSpec {
  std::string name;
  std::string path;  // absolute
  // Tells the files of one moment from those of another (see file_stamp.h).
  std::string stamp;
  storage::DType dtype = storage::DType::kFloat32;
  std::string device;  // empty: the server's choice
  // Not empty: why it cannot be served, whatever its files are.
  std::string failure;
};

struct DictionarySpec {
  std::string name, model;
  std::string path;  // absolute
  std::string stamp;
  dictionary::Overrides overrides;
  std::string failure;  // as a model's
};

struct CatalogSpec {
  std::vector<ModelSpec> models;
  std::vector<DictionarySpec> dictionaries;
};

enum class State { kRegistered, kLoading, kResident, kEvicted, kFailed };
const char* StateName(State state);

// Measured on sample text with the dictionary's own model.
struct Measurement {
  int64_t tokens = 0;
  double l0 = 0, fvu = 0;
  int64_t dead_latents = 0;
};

// What a dictionary's self check has found; of a pair about both halves.
// Without measurements: nothing yet, or the reason is among the warnings.
struct SelfCheckResult {
  std::optional<Measurement> in, out;
  std::vector<std::string> warnings;
};

struct ModelStatus {
  ModelSpec spec;
  State state = State::kRegistered;
  std::string failure;
  // Below: valid once the files have been opened (config.n_layers > 0).
  model::ModelConfig config;
  storage::Digest digest{};
  std::optional<int32_t> bos_token_id;
  std::vector<model::Processing> resident_processing;
  int64_t weight_bytes = 0, resident_bytes = 0;
  double load_seconds = 0;
  double load_progress = 0;  // of its bytes, while it is loading
  std::string device;
};

struct DictionaryStatus {
  DictionarySpec spec;
  State state = State::kRegistered;
  std::string failure;
  // Below: valid once the files have been opened (manifest.d_sae > 0).
  dictionary::Manifest manifest;
  storage::Digest digest{};
  int64_t resident_bytes = 0;
  double load_seconds = 0;
  double load_progress = 0;
  SelfCheckResult checked;
};

// What a device's weights hold, to the last running request's, and may hold.
struct WeightMemory {
  std::string device;
  int64_t used_bytes = 0;
  int64_t budget_bytes = 0;  // 0: without a limit
};

// Of an entry, whichever it is.
using EntryStatus = std::variant<ModelStatus, DictionaryStatus>;

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_CATALOG_TYPES_H_
