#ifndef CUPOLA_TESTS_SERVICE_TINY_MODEL_H_
#define CUPOLA_TESTS_SERVICE_TINY_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

// Small random models and dictionaries on disk, in the formats that the server
// reads: a real start needs no download.

namespace cupola::testing {

struct NamedTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// Writes float32 tensors as one safetensors file.
void WriteSafetensors(const std::string& path,
                      const std::map<std::string, NamedTensor>& tensors);

struct TinyGpt2 {
  int64_t n_layers = 2, d_model = 32, n_heads = 4, n_ctx = 64;
  uint32_t seed = 1;
};
// A byte-level vocabulary without merges: a token per byte, and
// <|endoftext|>.
inline constexpr int kTinyVocabulary = 257;
inline constexpr int kTinyBos = 256;

// A Hugging Face folder of a GPT-2: config.json, model.safetensors,
// tokenizer.json, tokenizer_config.json.
void WriteTinyGpt2(const std::string& folder, const TinyGpt2& sizes);

// A SAELens folder of a standard (ReLU) SAE at `hook`.
void WriteTinySae(const std::string& folder, const std::string& hook,
                  int64_t d_in, int64_t d_sae, uint32_t seed);

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_SERVICE_TINY_MODEL_H_
