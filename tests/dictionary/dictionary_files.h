#ifndef CUPOLA_TESTS_DICTIONARY_DICTIONARY_FILES_H_
#define CUPOLA_TESTS_DICTIONARY_DICTIONARY_FILES_H_

#include <map>
#include <string>

#include "ATen/ATen.h"
#include "server/dictionary/dictionary_source.h"
#include "server/model/json.h"
#include "server/model/model_config.h"

namespace cupola::dictionary::testing {

using TensorMap = std::map<std::string, at::Tensor>;

// A GPT-2 with 2 layers, d_model 24, 4 heads of 6 and d_mlp 96.
model::ModelConfig SmallModel();

// A new empty folder under the test's temporary directory.
std::string NewFolder();

void WriteText(const std::string& path, const std::string& text);
// One safetensors file: float, half or bfloat16 tensors.
void WriteSafetensors(const std::string& path, const TensorMap& tensors);
// cfg.json and sae_weights.safetensors in a new folder.
std::string WriteDictionary(const model::Json& cfg, const TensorMap& tensors);

// A configuration of SAELens 6 on blocks.1.hook_resid_pre (transcoders: from
// ln2.hook_normalized to hook_mlp_out), d_in 24, d_sae 100, k 8.
model::Json Config(const std::string& architecture);
// Random tensors that fit it. The same seed gives the same values.
TensorMap RandomTensors(const model::Json& cfg, int seed);

// The eight tensors of a Jacobian pair and its configuration.
model::Json PairConfig();
TensorMap PairTensors(int seed);

// float32 [rows, columns], normal.
at::Tensor RandomRows(int64_t rows, int64_t columns, int seed);

}  // namespace cupola::dictionary::testing

#endif  // CUPOLA_TESTS_DICTIONARY_DICTIONARY_FILES_H_
