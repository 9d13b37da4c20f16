// A model's config.json.

#include <cstdint>
#include <cstdlib>

#include "server/model/json.h"
#include "server/model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto json = cupola::model::ParseJson(
      {reinterpret_cast<const char*>(data), size}, "config.json");
  if (!json.ok()) return 0;
  const auto config = cupola::model::ParseModelConfig(*json);
  if (!config.ok()) return 0;
  // What is accepted can be worked with.
  if (config->n_layers <= 0 || config->d_model <= 0 || config->n_heads <= 0 ||
      config->d_head <= 0 || config->d_mlp <= 0 || config->d_vocab <= 0 ||
      config->n_ctx <= 0 || config->fingerprint.empty() ||
      config->attention.size() != static_cast<size_t>(config->n_layers)) {
    std::abort();
  }
  return 0;
}
