#ifndef CUPOLA_SERVER_MODEL_MODEL_CONFIG_H_
#define CUPOLA_SERVER_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/json.h"

namespace cupola::model {

enum class Processing { kRaw, kFolded };
enum class NormKind { kLayerNorm, kRmsNorm };
enum class Activation { kGelu, kGeluNew, kGeluFast, kSilu, kRelu };
enum class PositionKind { kLearned, kRotary };

// A rotary table: `inverse_frequencies` has rotary_dim / 2 entries, with every
// scaling of the config (Llama-3, linear) applied already. They are float32
// values: Hugging Face rounds them so, and angles must agree at any position.
struct Rotary {
  int rotary_dim = 0;
  bool adjacent_pairs = false;  // GPT-J; else half-split
  std::vector<double> inverse_frequencies;
};

// What one attention layer differs in.
struct AttentionLayer {
  int64_t window = 0;         // keys including self; 0: global
  bool local_rotary = false;  // Gemma-3: local layers use their own base
  double scale = 1.0;         // scores are divided by this
};

// Everything the forward pass needs to know of a model: families differ in this
// struct and in their weight names, in nothing else.
struct ModelConfig {
  std::string family;  // Hugging Face's model_type
  int n_layers = 0;
  int64_t d_model = 0, n_heads = 0, n_kv_heads = 0, d_head = 0, d_mlp = 0;
  int64_t d_vocab = 0, n_ctx = 0;

  NormKind norm = NormKind::kLayerNorm;
  double norm_eps = 1e-5;
  bool norm_weight_offset = false;  // Gemma: stored weight + 1
  bool post_norms = false;          // Gemma-2/3: ln1_post, ln2_post
  bool qk_norm = false;             // Qwen3, Gemma-3: RMS over d_head
  bool parallel_blocks = false;     // NeoX, GPT-J
  bool shared_ln1 = false;          // GPT-J: the MLP reads ln1

  Activation activation = Activation::kGelu;
  bool gated_mlp = false;

  // Which matrices come with a bias.
  bool qkv_bias = false, attention_out_bias = false;
  bool mlp_bias = false, unembed_bias = false;

  PositionKind positions = PositionKind::kLearned;
  Rotary rotary, local_rotary;
  std::vector<AttentionLayer> attention;  // [n_layers]

  double attention_softcap = 0;  // 0: none
  double logit_softcap = 0;
  bool scale_embedding = false;  // Gemma: * sqrt(d_model) in the weight's dtype
  bool tied_unembedding = false;

  bool default_prepend_bos = true;  // TransformerLens' default for the family
  int64_t bos_token_id = -1;        // from config.json; -1: none

  // Everything above, canonical, for the model's digest: equal for configs that
  // say the same in the words of different transformers versions.
  std::string fingerprint;
};

// From config.json; a multimodal Gemma-3's `text_config` is taken alone.
// INVALID_ARGUMENT: a field is missing, of the wrong type, out
// of range or contradicts another; UNIMPLEMENTED: a family or a feature of one
// (with its name) that Cupola does not serve; lists the families it does.
absl::StatusOr<ModelConfig> ParseModelConfig(const Json& config);

// "raw" or "folded".
const char* ProcessingName(Processing processing);

}  // namespace cupola::model

#endif  // CUPOLA_SERVER_MODEL_MODEL_CONFIG_H_
