#ifndef CUPOLA_TESTS_FILES_TINY_MODEL_H_
#define CUPOLA_TESTS_FILES_TINY_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

// Small random models and dictionaries on disk, in the formats that the server
// reads, for tests that need one but no particular one. The same numbers on
// every machine.

namespace cupola::testing {

struct FloatTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

struct TinySizes {
  int64_t n_layers = 2, d_model = 32, n_heads = 4, n_ctx = 64;
  uint32_t seed = 1;
};

// A byte-level vocabulary without merges: a token per byte, and
// <|endoftext|>.
inline constexpr int kTinyVocabulary = 257;
inline constexpr int kTinyBos = 256;

// A GPT-2. Change what a test is about, then Write.
struct TinyGpt2 {
  explicit TinyGpt2(const TinySizes& sizes = {});
  // Writes a Hugging Face folder, made if need be: config.json,
  // model.safetensors, tokenizer.json, tokenizer_config.json.
  void Write(const std::string& folder) const;

  nlohmann::json config;
  std::map<std::string, FloatTensor> tensors;
};

// A SAELens folder of a standard (ReLU) SAE at `hook`.
void WriteTinySae(const std::string& folder, const std::string& hook,
                  int64_t d_in, int64_t d_sae, uint32_t seed);

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_FILES_TINY_MODEL_H_
