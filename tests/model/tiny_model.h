#ifndef CUPOLA_TESTS_MODEL_TINY_MODEL_H_
#define CUPOLA_TESTS_MODEL_TINY_MODEL_H_

#include <map>
#include <string>

#include "ATen/ATen.h"
#include "server/model/json.h"

namespace cupola::model {

// A Hugging Face folder of a random two-layer GPT-2 with 40 tokens and a context
// of 16, for tests that need a model but no particular one. Change what a test is
// about, then Write.
struct TinyModel {
  TinyModel();
  // Replaces config.json, model.safetensors and tokenizer.json.
  void Write(const std::string& folder) const;

  Json config;
  std::map<std::string, at::Tensor> tensors;
};

}  // namespace cupola::model

#endif  // CUPOLA_TESTS_MODEL_TINY_MODEL_H_
