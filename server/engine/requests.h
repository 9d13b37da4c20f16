#ifndef CUPOLA_SERVER_ENGINE_REQUESTS_H_
#define CUPOLA_SERVER_ENGINE_REQUESTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/engine/cost.h"
#include "server/engine/request_context.h"
#include "server/model/model_config.h"
#include "storage/array.h"
#include "storage/digest.h"

// The plain structs that requests and answers are inside the server. The
// service layer turns protobuf into these and back; nothing below it knows
// protobuf. Fields mean what the messages of proto/cupola/v1/analysis.proto
// say.

namespace cupola::engine {

using storage::Array;

struct Prompt {
  bool is_text = true;
  std::string text;
  std::vector<int32_t> ids;
};

struct Prompts {
  std::vector<Prompt> prompts;
  std::optional<bool> prepend_bos;
};

struct Positions {
  enum class Kind { kAll, kEveryPrompt, kPerPrompt };
  Kind kind = Kind::kAll;
  // One list (kEveryPrompt) or one per prompt.
  std::vector<std::vector<int64_t>> lists;
};

// CSR arrays: indptr INT64 [rows + 1], indices UINT32, values FLOAT32.
struct SparseArrays {
  Array indptr, indices, values;
  int64_t columns = 0;
};

struct StageSeconds {
  double lookup = 0, queue = 0, compute = 0;
};

struct Provenance {
  std::vector<std::vector<int32_t>> token_ids;
  std::string model;
  storage::Digest model_digest{};
  std::string dictionary;
  storage::Digest dictionary_digest{};
  storage::DType dtype = storage::DType::kFloat32;
  model::Processing processing = model::Processing::kRaw;
  bool from_cache = false;
  StageSeconds seconds;
  std::optional<Estimate> estimate;  // a dry run's: the answer is empty
};

struct TokenizeRequest {
  std::string model;
  Prompts prompts;
};
struct TokenizeAnswer {
  struct Tokens {
    std::vector<int32_t> ids;
    std::vector<std::string> pieces;
    std::string text;
  };
  std::vector<Tokens> prompts;
  bool prepended_bos = false;
};

struct ActivationsRequest {
  std::string model;
  Prompts prompts;
  std::vector<std::string> hooks;
  Positions positions;
  std::optional<model::Processing> processing;
  storage::DType dtype = storage::DType::kFloat32;
};
struct ActivationsAnswer {
  std::vector<std::string> hooks;               // full names
  std::vector<std::vector<Array>> activations;  // [hook][prompt]
  std::vector<Array> positions;                 // [prompt] INT32
  Provenance provenance;
};

struct FeaturesRequest {
  std::string dictionary;
  std::optional<Prompts> prompts;  // exactly one of the two
  std::optional<Array> inputs;
  Positions positions;
  std::optional<model::Processing> processing;
  std::vector<uint32_t> latents;
  uint32_t top_k = 0;
  float min_activation = 0;
};
struct FeaturesAnswer {
  SparseArrays features;
  Array prompt, position;  // INT32 [rows]
  Provenance provenance;
};

struct ReconstructRequest {
  std::string dictionary;
  std::optional<Prompts> prompts;  // exactly one of the three
  std::optional<Array> inputs;
  std::optional<SparseArrays> features;
  Positions positions;
  std::optional<model::Processing> processing;
};
struct ReconstructAnswer {
  Array reconstruction, target, squared_error, l0;
  Array prompt, position;
  double fvu = 0, mean_l0 = 0;
  Provenance provenance;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_REQUESTS_H_
