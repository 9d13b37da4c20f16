#ifndef CUPOLA_SERVER_ENGINE_MEAN_REQUESTS_H_
#define CUPOLA_SERVER_ENGINE_MEAN_REQUESTS_H_

#include <optional>
#include <string>
#include <vector>

#include "server/engine/mean_store.h"
#include "server/engine/requests.h"

// Plain structs of proto/cupola/v1/means.proto.

namespace cupola::engine {

struct MeanActivationRequest {
  std::string model;
  Prompts prompts;
  std::string hook;
  Positions positions;
  std::optional<model::Processing> processing;
  std::string name;  // empty: not stored
};
struct MeanActivationAnswer {
  Array mean;  // FLOAT32 [...HookShape]
  MeanInfo info;
  Provenance provenance;
};

struct ListMeansRequest {
  std::string model;
};
struct ListMeansAnswer {
  std::vector<MeanInfo> means;
};

struct DeleteMeanRequest {
  std::string model;
  std::string name, hook;
  model::Processing processing = model::Processing::kRaw;
};
struct DeleteMeanAnswer {};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_MEAN_REQUESTS_H_
