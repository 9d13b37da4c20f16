#include "server/model/weight_names.h"

#include <map>

namespace cupola::model {
namespace {

WeightNames Gpt2() {
  return {.prefixes = {"transformer.", ""},
          .embedding = "wte",
          .positions = "wpe",
          .layers = "h.",
          .ln1 = "ln_1",
          .ln2 = "ln_2",
          .matrices = MatrixLayout::kInOut,
          .qkv_layout = QkvLayout::kBlocks,
          .qkv = "attn.c_attn",
          .out = "attn.c_proj",
          .mlp_in = "mlp.c_fc",
          .mlp_out = "mlp.c_proj",
          .final_norm = "ln_f",
          .unembedding = {"lm_head"}};
}

WeightNames GptNeo() {
  return {.prefixes = {"transformer.", ""},
          .embedding = "wte",
          .positions = "wpe",
          .layers = "h.",
          .ln1 = "ln_1",
          .ln2 = "ln_2",
          .q = "attn.attention.q_proj",
          .k = "attn.attention.k_proj",
          .v = "attn.attention.v_proj",
          .out = "attn.attention.out_proj",
          .mlp_in = "mlp.c_fc",
          .mlp_out = "mlp.c_proj",
          .final_norm = "ln_f",
          .unembedding = {"lm_head"}};
}

WeightNames GptJ() {
  return {.prefixes = {"transformer.", ""},
          .embedding = "wte",
          .layers = "h.",
          .ln1 = "ln_1",
          .q = "attn.q_proj",
          .k = "attn.k_proj",
          .v = "attn.v_proj",
          .out = "attn.out_proj",
          .mlp_in = "mlp.fc_in",
          .mlp_out = "mlp.fc_out",
          .final_norm = "ln_f",
          .unembedding = {"lm_head"}};
}

WeightNames GptNeoX() {
  return {.prefixes = {"gpt_neox.", ""},
          .embedding = "embed_in",
          .layers = "layers.",
          .ln1 = "input_layernorm",
          .ln2 = "post_attention_layernorm",
          .qkv_layout = QkvLayout::kPerHead,
          .qkv = "attention.query_key_value",
          .out = "attention.dense",
          .mlp_in = "mlp.dense_h_to_4h",
          .mlp_out = "mlp.dense_4h_to_h",
          .final_norm = "final_layer_norm",
          .unembedding = {"embed_out", "lm_head"}};
}

WeightNames Llama() {
  return {.prefixes = {"model.", ""},
          .embedding = "embed_tokens",
          .layers = "layers.",
          .ln1 = "input_layernorm",
          .ln2 = "post_attention_layernorm",
          .q = "self_attn.q_proj",
          .k = "self_attn.k_proj",
          .v = "self_attn.v_proj",
          .out = "self_attn.o_proj",
          .gate = "mlp.gate_proj",
          .mlp_in = "mlp.up_proj",
          .mlp_out = "mlp.down_proj",
          .final_norm = "norm",
          .unembedding = {"lm_head"}};
}

WeightNames Qwen3() {
  WeightNames names = Llama();
  names.q_norm = "self_attn.q_norm";
  names.k_norm = "self_attn.k_norm";
  return names;
}

WeightNames Gemma2() {
  WeightNames names = Llama();
  names.ln1_post = "post_attention_layernorm";
  names.ln2 = "pre_feedforward_layernorm";
  names.ln2_post = "post_feedforward_layernorm";
  return names;
}

// Multimodal checkpoints keep the text model one level deeper, in an order of
// words that changed between versions of transformers.
WeightNames Gemma3() {
  WeightNames names = Gemma2();
  names.q_norm = "self_attn.q_norm";
  names.k_norm = "self_attn.k_norm";
  names.prefixes = {"model.", "model.language_model.", "language_model.model.",
                    "language_model.", ""};
  names.unembedding = {"lm_head", "language_model.lm_head"};
  return names;
}

}  // namespace

const WeightNames& WeightNamesOf(const std::string& family) {
  static const auto& all = *new std::map<std::string, WeightNames>{
      {"gpt2", Gpt2()},        {"gpt_neo", GptNeo()},    {"gptj", GptJ()},
      {"gpt_neox", GptNeoX()}, {"llama", Llama()},       {"mistral", Llama()},
      {"qwen2", Llama()},      {"qwen3", Qwen3()},       {"gemma", Llama()},
      {"gemma2", Gemma2()},    {"gemma3_text", Gemma3()}};
  return all.at(family);
}

}  // namespace cupola::model
