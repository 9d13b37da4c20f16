#include "tests/model/tiny_model.h"

#include "absl/strings/str_cat.h"
#include "tests/model/safetensors_writer.h"

namespace cupola::model {
namespace {

constexpr int64_t kWidth = 16;
constexpr int64_t kVocabulary = 40;
constexpr int64_t kContext = 16;

// Letters as byte-level BPE has them, without merges.
Json Tokenizer() {
  Json vocabulary = Json::object();
  for (int id = 0; id < 26; ++id) {
    vocabulary[std::string(1, static_cast<char>('a' + id))] = id;
  }
  return {{"version", "1.0"},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder",
           {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"vocab", vocabulary},
            {"merges", Json::array()}}}};
}

}  // namespace

TinyModel::TinyModel() {
  at::manual_seed(3);
  config = {{"model_type", "gpt2"}, {"n_embd", kWidth},
            {"n_layer", 2},         {"n_head", 2},
            {"n_positions", kContext}, {"vocab_size", kVocabulary},
            {"layer_norm_epsilon", 1e-5}};
  const auto norm = [&](const std::string& name) {
    tensors[name + ".weight"] = 1 + 0.1 * at::randn({kWidth});
    tensors[name + ".bias"] = 0.1 * at::randn({kWidth});
  };
  const auto matrix = [&](const std::string& name, int64_t in, int64_t out) {
    tensors[name + ".weight"] = 0.3 * at::randn({in, out});
    tensors[name + ".bias"] = 0.1 * at::randn({out});
  };
  tensors["wte.weight"] = at::randn({kVocabulary, kWidth});
  tensors["wpe.weight"] = at::randn({kContext, kWidth});
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = absl::StrCat("h.", layer, ".");
    norm(prefix + "ln_1");
    norm(prefix + "ln_2");
    matrix(prefix + "attn.c_attn", kWidth, 3 * kWidth);
    matrix(prefix + "attn.c_proj", kWidth, kWidth);
    matrix(prefix + "mlp.c_fc", kWidth, 4 * kWidth);
    matrix(prefix + "mlp.c_proj", 4 * kWidth, kWidth);
  }
  norm("ln_f");
}

void TinyModel::Write(const std::string& folder) const {
  WriteFile(folder + "/config.json", config.dump());
  WriteFile(folder + "/tokenizer.json", Tokenizer().dump());
  WriteFile(folder + "/model.safetensors", SafetensorsFile(tensors));
}

}  // namespace cupola::model
