#include "tests/dictionary/dictionary_files.h"

#include <atomic>
#include <filesystem>
#include <fstream>

#include "ATen/CPUGeneratorImpl.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/model/safetensors_writer.h"

namespace cupola::dictionary::testing {
namespace {

using model::Json;

at::Tensor Normal(at::IntArrayRef shape, at::Generator& generator,
                  double scale = 1, double offset = 0) {
  return at::randn(shape, generator) * scale + offset;
}

}  // namespace

model::ModelConfig SmallModel() {
  const absl::StatusOr<model::ModelConfig> config =
      model::ParseModelConfig(Json{{"model_type", "gpt2"},
                                   {"n_layer", 2},
                                   {"n_head", 4},
                                   {"n_embd", 24},
                                   {"n_positions", 64},
                                   {"vocab_size", 50},
                                   {"layer_norm_epsilon", 1e-5},
                                   {"activation_function", "gelu_new"},
                                   {"bos_token_id", 0}});
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

std::string NewFolder() {
  static std::atomic<int> next{0};
  const std::string folder =
      absl::StrCat(::testing::TempDir(), "/dictionary-", getpid(), "-", next++);
  std::filesystem::create_directories(folder);
  return folder;
}

void WriteText(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

void WriteSafetensors(const std::string& path, const TensorMap& tensors) {
  WriteText(path, model::SafetensorsFile(tensors));
}

std::string WriteDictionary(const Json& cfg, const TensorMap& tensors) {
  const std::string folder = NewFolder();
  WriteText(folder + "/cfg.json", cfg.dump());
  WriteSafetensors(folder + "/sae_weights.safetensors", tensors);
  return folder;
}

Json Config(const std::string& architecture) {
  const bool transcoder = absl::EndsWith(architecture, "transcoder");
  Json cfg = {{"architecture", architecture},
              {"d_in", 24},
              {"d_sae", 100},
              {"dtype", "float32"},
              {"apply_b_dec_to_input", !transcoder},
              {"normalize_activations", "none"},
              {"reshape_activations", "none"},
              {"metadata",
               {{"sae_lens_version", "6.5.0"},
                {"model_name", "small"},
                {"hook_name", transcoder ? "blocks.1.ln2.hook_normalized"
                                         : "blocks.1.hook_resid_pre"},
                {"prepend_bos", true},
                {"context_size", 64}}}};
  if (absl::StartsWith(architecture, "topk")) cfg["k"] = 8;
  if (transcoder) {
    cfg["d_out"] = 24;
    cfg["metadata"]["hook_name_out"] = "blocks.1.hook_mlp_out";
  }
  return cfg;
}

TensorMap RandomTensors(const Json& cfg, int seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const std::string architecture = cfg["architecture"];
  const int64_t d_in = cfg["d_in"], d_sae = cfg["d_sae"];
  const int64_t d_out = cfg.value("d_out", d_in);
  TensorMap tensors;
  tensors["W_dec"] = Normal({d_sae, d_out}, generator, 0.3);
  tensors["b_dec"] = Normal({d_out}, generator, 0.2);
  if (architecture == "matching_pursuit") {
    tensors["W_dec"] /= tensors["W_dec"].norm(2, {1}, true);
    return tensors;
  }
  tensors["W_enc"] = Normal({d_in, d_sae}, generator, 0.2);
  if (architecture == "gated") {
    tensors["b_gate"] = Normal({d_sae}, generator, 0.2, -0.5);
    tensors["b_mag"] = Normal({d_sae}, generator, 0.2);
    tensors["r_mag"] = Normal({d_sae}, generator, 0.2);
  } else {
    tensors["b_enc"] = Normal({d_sae}, generator, 0.2, -0.5);
  }
  if (absl::StartsWith(architecture, "jumprelu")) {
    tensors["threshold"] = Normal({d_sae}, generator, 0.2, 0.5).abs();
  }
  if (absl::StrContains(architecture, "skip")) {
    tensors["W_skip"] = Normal({d_out, d_in}, generator, 0.2);
  }
  return tensors;
}

Json PairConfig() {
  return {{"architecture", "standard"},
          {"activation_fn_str", "topk"},
          {"activation_fn_kwargs", {{"k", 8}}},
          {"d_in", 24},
          {"d_sae", 100},
          {"apply_b_dec_to_input", false},
          {"normalize_activations", "none"},
          {"hook_name", "blocks.1.ln2.hook_normalized"},
          {"hook_head_index", nullptr},
          {"is_pair", true},
          {"use_jacobian_loss", true}};
}

TensorMap PairTensors(int seed) {
  TensorMap tensors;
  for (const char* suffix : {"", "_out"}) {
    for (const auto& [name, tensor] :
         RandomTensors(Config("topk"), seed + (*suffix != 0))) {
      tensors[absl::StrCat("_", name, suffix)] = tensor;
    }
  }
  return tensors;
}

at::Tensor RandomRows(int64_t rows, int64_t columns, int seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return Normal({rows, columns}, generator);
}

}  // namespace cupola::dictionary::testing
