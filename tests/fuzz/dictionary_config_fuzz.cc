// A dictionary's cfg.json, for a small model.

#include <cstdint>
#include <cstdlib>

#include "server/dictionary/manifest.h"
#include "server/model/json.h"
#include "server/model/model_config.h"

namespace {

const cupola::model::ModelConfig& SmallModel() {
  static const auto* const kModel = [] {
    const auto config =
        cupola::model::ParseModelConfig(cupola::model::Json::parse(R"({
      "model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 4,
      "n_positions": 64, "n_inner": 128, "vocab_size": 257,
      "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5})"));
    if (!config.ok()) std::abort();
    return new cupola::model::ModelConfig(*config);
  }();
  return *kModel;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto json = cupola::model::ParseJson(
      {reinterpret_cast<const char*>(data), size}, "cfg.json");
  if (!json.ok()) return 0;
  const auto manifest =
      cupola::dictionary::ParseManifest(*json, {}, SmallModel());
  if (manifest.ok() && (manifest->d_in <= 0 || manifest->d_sae <= 0 ||
                        manifest->fingerprint.empty())) {
    std::abort();
  }
  return 0;
}
