#include "server/model/model_families.h"

#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/model/rotary_config.h"

namespace cupola::model {
namespace {

// Bounds that no model reaches, so that products of sizes cannot overflow.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 40;

void ReadActivation(ConfigFields& fields, const std::string& name,
                    ModelConfig* model) {
  struct Known {
    const char* name;
    Activation activation;
  };
  static constexpr Known kKnown[] = {
      {"gelu", Activation::kGelu},
      {"gelu_python", Activation::kGelu},
      {"gelu_new", Activation::kGeluNew},
      {"gelu_pytorch_tanh", Activation::kGeluNew},
      {"gelu_fast", Activation::kGeluFast},
      {"silu", Activation::kSilu},
      {"swish", Activation::kSilu},
      {"relu", Activation::kRelu}};
  for (const Known& known : kKnown) {
    if (name == known.name) {
      model->activation = known.activation;
      return;
    }
  }
  fields.Fail(NotServed(absl::StrCat("activation '", name, "'")));
}

// One layer kind per layer, from `layer_types` or, where it is absent, from
// `is_sliding(layer)`; sliding layers get the window.
void ReadWindows(ConfigFields& fields, int64_t window,
                 const std::function<bool(int)>& is_sliding,
                 ModelConfig* model) {
  const Json& types = fields.Value("layer_types");
  const bool listed = !types.is_null();
  if (listed && (!types.is_array() ||
                 types.size() != static_cast<size_t>(model->n_layers))) {
    fields.Fail(absl::InvalidArgumentError(absl::StrCat(
        "config field 'layer_types' must list ", model->n_layers, " layers")));
    return;
  }
  for (int layer = 0; layer < model->n_layers; ++layer) {
    bool sliding = is_sliding(layer);
    if (listed) {
      const Json& type = types[layer];
      const std::string name =
          type.is_string() ? type.get<std::string>() : type.dump();
      sliding = name == "sliding_attention";
      if (!sliding && name != "full_attention") {
        fields.Fail(NotServed(absl::StrCat("layer type '", name, "'")));
        return;
      }
    }
    if (sliding) model->attention[layer].window = window;
  }
}

void SetScale(double scale, ModelConfig* model) {
  for (AttentionLayer& layer : model->attention) layer.scale = scale;
}

void ReadRotary(ConfigFields& fields, const Json& config,
                const RotaryDefaults& defaults, ModelConfig* model) {
  model->positions = PositionKind::kRotary;
  auto rotary = ParseRotary(config, "full_attention", defaults, model->d_head,
                            model->n_ctx, /*local_is_unscaled=*/false);
  if (!rotary.ok()) {
    fields.Fail(rotary.status());
    return;
  }
  model->rotary = *std::move(rotary);
}

// Sizes under the names of GPT-2's time.
void ReadGptSizes(ConfigFields& fields, ModelConfig* model) {
  model->n_layers =
      static_cast<int>(fields.Size({"n_layer", "num_layers"}, kMaxLayers));
  model->d_model = fields.Size({"n_embd", "hidden_size"}, kMaxWidth);
  model->n_heads = fields.Size({"n_head", "num_heads"}, kMaxWidth);
  model->n_kv_heads = model->n_heads;
  model->d_head = model->d_model / model->n_heads;
  model->d_mlp = fields.SizeOr({"n_inner", "intermediate_size"}, kMaxWidth,
                               4 * model->d_model);
  model->n_ctx = fields.Size(
      {"n_positions", "max_position_embeddings", "n_ctx"}, kMaxContext);
  model->d_vocab = fields.Size({"vocab_size"}, kMaxVocabulary);
  model->norm_eps = fields.PositiveOr({"layer_norm_epsilon"}, 1e-5);
  ReadActivation(fields, fields.TextOr({"activation_function"}, "gelu_new"),
                 model);
  model->tied_unembedding = fields.Flag("tie_word_embeddings", true);
  model->mlp_bias = true;
  model->attention.resize(model->n_layers);
  if (model->d_model % model->n_heads != 0) {
    fields.Fail(absl::InvalidArgumentError(
        absl::StrCat("hidden size ", model->d_model, " is not a multiple of ",
                     model->n_heads, " heads")));
  }
}

// Sizes under the names that everything since NeoX uses. Heads, their size and
// the vocabulary may be absent where the family has defaults.
struct SizeDefaults {
  int64_t heads = 0, kv_heads = 0, d_head = 0, vocabulary = 0, context = 0;
};
void ReadSizes(ConfigFields& fields, const SizeDefaults& defaults,
               ModelConfig* model) {
  const auto size = [&](const char* key, int64_t max, int64_t fallback) {
    return fallback > 0 ? fields.SizeOr({key}, max, fallback)
                        : fields.Size({key}, max);
  };
  model->n_layers =
      static_cast<int>(fields.Size({"num_hidden_layers"}, kMaxLayers));
  model->d_model = fields.Size({"hidden_size"}, kMaxWidth);
  model->d_mlp = fields.Size({"intermediate_size"}, kMaxWidth);
  model->n_heads = size("num_attention_heads", kMaxWidth, defaults.heads);
  model->n_kv_heads =
      fields.SizeOr({"num_key_value_heads"}, kMaxWidth,
                    defaults.kv_heads > 0 ? defaults.kv_heads : model->n_heads);
  model->d_vocab = size("vocab_size", kMaxVocabulary, defaults.vocabulary);
  model->n_ctx = size("max_position_embeddings", kMaxContext, defaults.context);
  const std::optional<int64_t> d_head =
      fields.MaybeSize({"head_dim"}, kMaxWidth);
  if (d_head.has_value() || defaults.d_head > 0) {
    model->d_head = d_head.value_or(defaults.d_head);
  } else {
    model->d_head = model->d_model / model->n_heads;
    if (model->d_model % model->n_heads != 0) {
      fields.Fail(absl::InvalidArgumentError(
          absl::StrCat("hidden size ", model->d_model, " is not a multiple of ",
                       model->n_heads, " heads, and there is no 'head_dim'")));
    }
  }
  if (model->n_heads % model->n_kv_heads != 0) {
    fields.Fail(absl::InvalidArgumentError(absl::StrCat(
        "num_attention_heads ", model->n_heads,
        " is not a multiple of num_key_value_heads ", model->n_kv_heads)));
  }
  model->attention.resize(model->n_layers);
  SetScale(std::sqrt(static_cast<double>(model->d_head)), model);
}

void ReadGpt2(ConfigFields& fields, const Json&, ModelConfig* model) {
  ReadGptSizes(fields, model);
  model->qkv_bias = model->attention_out_bias = true;
  if (fields.Flag("add_cross_attention", false)) {
    fields.Fail(NotServed("cross-attention"));
  }
  if (fields.Flag("scale_attn_weights", true)) {
    SetScale(std::sqrt(static_cast<double>(model->d_head)), model);
  }
  if (fields.Flag("scale_attn_by_inverse_layer_idx", false)) {
    for (int layer = 0; layer < model->n_layers; ++layer) {
      model->attention[layer].scale *= layer + 1;
    }
  }
}

// The kinds of GPT-Neo's layers: `attention_layers`, or the older
// `attention_types` [[["global", "local"], 12], ...] written out.
std::vector<std::string> GptNeoKinds(ConfigFields& fields, int n_layers) {
  std::vector<std::string> kinds;
  const auto append = [&](const Json& list) {
    for (const Json& kind : list) {
      kinds.push_back(kind.is_string() ? kind.get<std::string>() : "");
    }
  };
  const Json& layers = fields.Value("attention_layers");
  const Json& types = fields.Value("attention_types");
  if (layers.is_array()) {
    append(layers);
  } else if (types.is_array()) {
    for (const Json& group : types) {
      if (!group.is_array() || group.size() != 2 || !group[0].is_array() ||
          !group[1].is_number_unsigned() ||
          group[1].get<uint64_t>() > static_cast<uint64_t>(n_layers)) {
        break;
      }
      for (uint64_t i = 0; i < group[1].get<uint64_t>(); ++i) append(group[0]);
    }
  }
  if (kinds.size() != static_cast<size_t>(n_layers)) {
    fields.Fail(absl::InvalidArgumentError(
        absl::StrCat("config fields 'attention_layers' or 'attention_types' "
                     "must give a kind for each of ",
                     n_layers, " layers")));
    kinds.assign(n_layers, "global");
  }
  return kinds;
}

void ReadGptNeo(ConfigFields& fields, const Json&, ModelConfig* model) {
  ReadGptSizes(fields, model);
  model->attention_out_bias = true;
  const int64_t window = fields.SizeOr({"window_size"}, kMaxContext, 256);
  const auto kinds = GptNeoKinds(fields, model->n_layers);
  for (int layer = 0; layer < model->n_layers; ++layer) {
    if (kinds[layer] == "local") {
      model->attention[layer].window = window;
    } else if (kinds[layer] != "global") {
      fields.Fail(
          NotServed(absl::StrCat("attention type '", kinds[layer], "'")));
    }
  }
}

void ReadGptJ(ConfigFields& fields, const Json&, ModelConfig* model) {
  ReadGptSizes(fields, model);
  model->tied_unembedding = fields.Flag("tie_word_embeddings", false);
  model->parallel_blocks = model->shared_ln1 = true;
  model->unembed_bias = true;
  SetScale(std::sqrt(static_cast<double>(model->d_head)), model);
  model->positions = PositionKind::kRotary;
  const int64_t dim = fields.Size({"rotary_dim"}, model->d_head);
  if (dim % 2 != 0) {
    fields.Fail(absl::InvalidArgumentError(
        absl::StrCat("rotary_dim ", dim, " must be even")));
    return;
  }
  model->rotary = PlainRotary(10000, dim, /*adjacent_pairs=*/true);
}

void ReadGptNeoX(ConfigFields& fields, const Json& config, ModelConfig* model) {
  ReadSizes(fields, {}, model);
  model->norm_eps = fields.PositiveOr({"layer_norm_eps"}, 1e-5);
  ReadActivation(fields, fields.TextOr({"hidden_act"}, "gelu"), model);
  model->parallel_blocks = fields.Flag("use_parallel_residual", true);
  model->qkv_bias = model->attention_out_bias =
      fields.Flag("attention_bias", true);
  model->mlp_bias = true;
  model->tied_unembedding = fields.Flag("tie_word_embeddings", false);
  model->default_prepend_bos = false;
  ReadRotary(fields, config, {.fraction = 0.25}, model);
  if (model->n_kv_heads != model->n_heads) {
    fields.Fail(NotServed("grouped-query attention in gpt_neox"));
  }
}

// What Llama, Mistral, Qwen and Gemma share.
void ReadLlamaLike(ConfigFields& fields, const SizeDefaults& sizes,
                   const char* activation, ModelConfig* model) {
  ReadSizes(fields, sizes, model);
  model->norm = NormKind::kRmsNorm;
  model->norm_eps = fields.PositiveOr({"rms_norm_eps"}, 1e-6);
  model->gated_mlp = true;
  ReadActivation(fields,
                 fields.TextOr({"hidden_activation", "hidden_act"}, activation),
                 model);
}

void ReadLlama(ConfigFields& fields, const Json& config, ModelConfig* model) {
  ReadLlamaLike(fields, {}, "silu", model);
  model->qkv_bias = model->attention_out_bias =
      fields.Flag("attention_bias", false);
  model->mlp_bias = fields.Flag("mlp_bias", false);
  model->tied_unembedding = fields.Flag("tie_word_embeddings", false);
  ReadRotary(fields, config, {}, model);
}

void ReadMistral(ConfigFields& fields, const Json& config, ModelConfig* model) {
  ReadLlamaLike(fields, {}, "silu", model);
  model->tied_unembedding = fields.Flag("tie_word_embeddings", false);
  ReadRotary(fields, config, {}, model);
  const auto window = fields.MaybeSize({"sliding_window"}, kMaxContext);
  for (AttentionLayer& layer : model->attention) {
    layer.window = window.value_or(0);
  }
}

void ReadQwen(ConfigFields& fields, const Json& config, ModelConfig* model) {
  ReadLlamaLike(fields, {}, "silu", model);
  if (model->family == "qwen2") {
    model->qkv_bias = true;
  } else {
    model->qk_norm = true;
    model->qkv_bias = model->attention_out_bias =
        fields.Flag("attention_bias", false);
  }
  model->tied_unembedding = fields.Flag("tie_word_embeddings", false);
  model->default_prepend_bos = false;
  ReadRotary(fields, config, {}, model);
  if (!fields.Flag("use_sliding_window", false)) return;
  const auto window = fields.MaybeSize({"sliding_window"}, kMaxContext);
  const int64_t first = fields.SizeOr({"max_window_layers"}, kMaxLayers, 28);
  if (!window.has_value()) return;
  ReadWindows(
      fields, *window, [&](int layer) { return layer >= first; }, model);
}

void ReadGemmaCommon(ConfigFields& fields, const SizeDefaults& sizes,
                     ModelConfig* model) {
  ReadLlamaLike(fields, sizes, "gelu_pytorch_tanh", model);
  // The first Gemma's configs say "gelu" and mean the tanh form.
  if (model->activation == Activation::kGelu) {
    model->activation = Activation::kGeluNew;
  }
  model->norm_weight_offset = true;
  model->scale_embedding = true;
  model->qkv_bias = model->attention_out_bias =
      fields.Flag("attention_bias", false);
  model->tied_unembedding = fields.Flag("tie_word_embeddings", true);
  if (fields.Flag("use_bidirectional_attention", false)) {
    fields.Fail(NotServed("bidirectional attention"));
  }
}

void ReadGemma(ConfigFields& fields, const Json& config, ModelConfig* model) {
  ReadGemmaCommon(fields, {.d_head = 256}, model);
  ReadRotary(fields, config, {}, model);
}

// Gemma-2 and -3: a norm behind each sublayer too, alternating windows.
void ReadGemmaSandwich(ConfigFields& fields, const SizeDefaults& sizes,
                       int64_t pattern, ModelConfig* model) {
  ReadGemmaCommon(fields, sizes, model);
  model->post_norms = true;
  SetScale(std::sqrt(fields.PositiveOr({"query_pre_attn_scalar"}, 256)), model);
  model->attention_softcap =
      fields.MaybePositive({"attn_logit_softcapping"}).value_or(0);
  model->logit_softcap =
      fields.MaybePositive({"final_logit_softcapping"}).value_or(0);
  const int64_t window = fields.SizeOr({"sliding_window"}, kMaxContext, 4096);
  // Layer 0 slides; every `pattern`-th is global.
  ReadWindows(
      fields, window, [&](int layer) { return (layer + 1) % pattern != 0; },
      model);
}

void ReadGemma2(ConfigFields& fields, const Json& config, ModelConfig* model) {
  ReadGemmaSandwich(fields, {.d_head = 256}, 2, model);
  ReadRotary(fields, config, {}, model);
}

void ReadGemma3(ConfigFields& fields, const Json& config, ModelConfig* model) {
  // The text part of a multimodal config lists only what differs from these.
  const SizeDefaults sizes = {.heads = 8,
                              .kv_heads = 4,
                              .d_head = 256,
                              .vocabulary = 262208,
                              .context = 131072};
  const int64_t pattern = fields.SizeOr(
      {"sliding_window_pattern", "_sliding_window_pattern"}, kMaxLayers, 6);
  ReadGemmaSandwich(fields, sizes, pattern, model);
  model->qk_norm = true;
  ReadRotary(fields, config, {.base = 1e6}, model);
  auto local = ParseRotary(config, "sliding_attention", {.base = 1e4},
                           model->d_head, model->n_ctx,
                           /*local_is_unscaled=*/true);
  if (!local.ok()) {
    fields.Fail(local.status());
    return;
  }
  model->local_rotary = *std::move(local);
  for (AttentionLayer& layer : model->attention) {
    layer.local_rotary = layer.window > 0;
  }
}

}  // namespace

absl::Status NotServed(absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(what, " is not served"));
}

const std::map<std::string, FamilyReader>& ModelFamilies() {
  static const auto& families = *new std::map<std::string, FamilyReader>{
      {"gpt2", ReadGpt2},         {"gpt_neo", ReadGptNeo},
      {"gptj", ReadGptJ},         {"gpt_neox", ReadGptNeoX},
      {"llama", ReadLlama},       {"mistral", ReadMistral},
      {"qwen2", ReadQwen},        {"qwen3", ReadQwen},
      {"gemma", ReadGemma},       {"gemma2", ReadGemma2},
      {"gemma3_text", ReadGemma3}};
  return families;
}

}  // namespace cupola::model
