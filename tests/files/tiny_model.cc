#include "tests/files/tiny_model.h"

#include <cmath>
#include <filesystem>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/files/safetensors_file.h"

namespace cupola::testing {
namespace {

using Json = nlohmann::json;

// Uniform numbers with the given standard deviation; the same on every machine.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}

  FloatTensor Tensor(std::vector<int64_t> shape, double deviation) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    FloatTensor tensor{std::move(shape), std::vector<float>(count)};
    for (float& value : tensor.values) {
      const double unit = engine_() / 4294967295.0 * 2 - 1;  // [-1, 1]
      value = static_cast<float>(unit * deviation * std::sqrt(3.0));
    }
    return tensor;
  }

 private:
  std::mt19937 engine_;
};

FloatTensor Constant(int64_t size, float value) {
  return {{size}, std::vector<float>(size, value)};
}

void WriteTensors(const std::string& path,
                  const std::map<std::string, FloatTensor>& tensors) {
  std::map<std::string, StoredTensor> stored;
  for (const auto& [name, tensor] : tensors) {
    const auto* bytes = reinterpret_cast<const char*>(tensor.values.data());
    stored[name] = {"F32", tensor.shape,
                    std::string(bytes, tensor.values.size() * sizeof(float))};
  }
  WriteFile(path, SafetensorsFile(stored));
}

void WriteJson(const std::string& path, const Json& json) {
  WriteFile(path, json.dump(1));
}

// GPT-2's stand-in for a byte, in UTF-8: printable bytes are themselves, the
// others U+0100 onwards, in order.
std::string StandIn(int byte) {
  const auto printable = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)),
          static_cast<char>(0x80 | (code & 0x3F))};
}

void WriteTokenizer(const std::string& folder) {
  Json vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocabulary[StandIn(byte)] = byte;
  vocabulary["<|endoftext|>"] = kTinyBos;
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  WriteJson(folder + "/tokenizer.json", {{"version", "1.0"},
                                         {"truncation", nullptr},
                                         {"padding", nullptr},
                                         {"added_tokens",
                                          {{{"id", kTinyBos},
                                            {"content", "<|endoftext|>"},
                                            {"single_word", false},
                                            {"lstrip", false},
                                            {"rstrip", false},
                                            {"normalized", false},
                                            {"special", true}}}},
                                         {"normalizer", nullptr},
                                         {"pre_tokenizer", byte_level},
                                         {"post_processor", nullptr},
                                         {"decoder", byte_level},
                                         {"model",
                                          {{"type", "BPE"},
                                           {"dropout", nullptr},
                                           {"unk_token", nullptr},
                                           {"continuing_subword_prefix", ""},
                                           {"end_of_word_suffix", ""},
                                           {"fuse_unk", false},
                                           {"vocab", vocabulary},
                                           {"merges", Json::array()}}}});
  WriteJson(folder + "/tokenizer_config.json",
            {{"bos_token", "<|endoftext|>"},
             {"eos_token", "<|endoftext|>"},
             {"unk_token", "<|endoftext|>"}});
}

}  // namespace

TinyGpt2::TinyGpt2(const TinySizes& sizes)
    : config({{"model_type", "gpt2"},
              {"architectures", {"GPT2LMHeadModel"}},
              {"activation_function", "gelu_new"},
              {"n_layer", sizes.n_layers},
              {"n_embd", sizes.d_model},
              {"n_head", sizes.n_heads},
              {"n_positions", sizes.n_ctx},
              {"n_ctx", sizes.n_ctx},
              {"vocab_size", kTinyVocabulary},
              {"layer_norm_epsilon", 1e-5},
              {"bos_token_id", kTinyBos},
              {"eos_token_id", kTinyBos},
              {"tie_word_embeddings", true}}) {
  Random random(sizes.seed);
  const int64_t d = sizes.d_model;
  const auto vector = [&](const std::string& name, int64_t size, float mean) {
    FloatTensor& tensor = tensors[name] = random.Tensor({size}, 0.1);
    for (float& value : tensor.values) value += mean;
  };
  const auto norm = [&](const std::string& name) {
    vector(name + ".weight", d, 1);
    vector(name + ".bias", d, 0);
  };
  const auto matrix = [&](const std::string& name, int64_t in, int64_t out,
                          double gain) {
    tensors[name + ".weight"] =
        random.Tensor({in, out}, gain / std::sqrt(static_cast<double>(d)));
    vector(name + ".bias", out, 0);
  };
  tensors["wte.weight"] = random.Tensor({kTinyVocabulary, d}, 1);
  tensors["wpe.weight"] = random.Tensor({sizes.n_ctx, d}, 0.3);
  for (int64_t layer = 0; layer < sizes.n_layers; ++layer) {
    const std::string block = absl::StrCat("h.", layer, ".");
    norm(block + "ln_1");
    norm(block + "ln_2");
    matrix(block + "attn.c_attn", d, 3 * d, 1);
    matrix(block + "attn.c_proj", d, d, 1);
    matrix(block + "mlp.c_fc", d, 4 * d, 1);
    matrix(block + "mlp.c_proj", 4 * d, d, 0.5);
  }
  norm("ln_f");
}

void TinyGpt2::Write(const std::string& folder) const {
  std::filesystem::create_directories(folder);
  WriteJson(folder + "/config.json", config);
  WriteTokenizer(folder);
  WriteTensors(folder + "/model.safetensors", tensors);
}

void WriteTinySae(const std::string& folder, const std::string& hook,
                  int64_t d_in, int64_t d_sae, uint32_t seed) {
  std::filesystem::create_directories(folder);
  WriteJson(folder + "/cfg.json", {{"architecture", "standard"},
                                   {"d_in", d_in},
                                   {"d_sae", d_sae},
                                   {"dtype", "float32"},
                                   {"device", "cpu"},
                                   {"apply_b_dec_to_input", true},
                                   {"normalize_activations", "none"},
                                   {"reshape_activations", "none"},
                                   {"metadata",
                                    {{"model_name", "tiny"},
                                     {"hook_name", hook},
                                     {"context_size", 32},
                                     {"prepend_bos", true}}}});
  Random random(seed);
  const double scale = 1 / std::sqrt(static_cast<double>(d_in));
  WriteTensors(folder + "/sae_weights.safetensors",
               {{"W_enc", random.Tensor({d_in, d_sae}, scale)},
                {"b_enc", Constant(d_sae, -0.5f)},
                {"W_dec", random.Tensor({d_sae, d_in}, scale)},
                {"b_dec", Constant(d_in, 0)}});
}

}  // namespace cupola::testing
