"""Small random models of every family, built from a config with a fixed seed.

    make("gemma2", folder)   # config.json, model.safetensors, tokenizer.json, ...

Everything that could hide a mistake is moved away from its trivial value: norm
gains from 1, biases from 0, windows are shorter than the test prompts, key/value
heads are fewer than query heads, head sizes differ from d_model / n_heads where
the family allows it. Run as a program, it writes every model into a folder.
"""

import json
import pathlib
import sys
import zlib

import torch
import transformers

VOCABULARY = 300
CONTEXT = 64

_COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=CONTEXT,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=None,
)
_GQA = dict(_COMMON, num_key_value_heads=2)
_GPT = dict(
    vocab_size=VOCABULARY,
    n_embd=32,
    n_layer=3,
    n_head=4,
    n_positions=CONTEXT,
    bos_token_id=0,
    eos_token_id=0,
)


def _rope(**parameters):
    return dict(rope_parameters=dict({"rope_type": "default"}, **parameters))


# name -> (config class, model class, arguments)
FAMILIES = {
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT),
    "gpt2_scaled": (
        "GPT2Config",
        "GPT2LMHeadModel",
        dict(_GPT, scale_attn_by_inverse_layer_idx=True, n_inner=40),
    ),
    "gpt_neo": (
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        dict(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_layers=4,
            num_heads=4,
            attention_types=[[["global", "local"], 2]],
            window_size=6,
            max_position_embeddings=CONTEXT,
            bos_token_id=0,
            eos_token_id=0,
        ),
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        dict(_COMMON, **_rope(rope_theta=10000.0, partial_rotary_factor=0.5)),
    ),
    "gpt_neox_sequential": (
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        dict(
            _COMMON,
            use_parallel_residual=False,
            **_rope(rope_theta=100.0, partial_rotary_factor=1.0),
        ),
    ),
    "gptj": ("GPTJConfig", "GPTJForCausalLM", dict(_GPT, rotary_dim=4)),
    "llama": (
        "LlamaConfig",
        "LlamaForCausalLM",
        dict(_GQA, rms_norm_eps=1e-5, **_rope(rope_theta=10000.0)),
    ),
    "llama3": (
        "LlamaConfig",
        "LlamaForCausalLM",
        dict(
            _GQA,
            head_dim=16,
            tie_word_embeddings=True,
            # Wavelengths on both sides of the two limits, and between them.
            **_rope(
                rope_type="llama3",
                rope_theta=500.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        ),
    ),
    "llama_biased": (
        "LlamaConfig",
        "LlamaForCausalLM",
        dict(_GQA, attention_bias=True, mlp_bias=True, **_rope(rope_theta=1e4)),
    ),
    "mistral": (
        "MistralConfig",
        "MistralForCausalLM",
        dict(_GQA, head_dim=12, sliding_window=5, **_rope(rope_theta=1e4)),
    ),
    "qwen2": (
        "Qwen2Config",
        "Qwen2ForCausalLM",
        dict(_GQA, tie_word_embeddings=True, **_rope(rope_theta=1e6)),
    ),
    "qwen2_window": (
        "Qwen2Config",
        "Qwen2ForCausalLM",
        dict(
            _GQA,
            use_sliding_window=True,
            sliding_window=6,
            max_window_layers=1,
            **_rope(rope_theta=1e6),
        ),
    ),
    "qwen3": (
        "Qwen3Config",
        "Qwen3ForCausalLM",
        dict(_GQA, head_dim=12, **_rope(rope_theta=1e6)),
    ),
    "gemma": (
        "GemmaConfig",
        "GemmaForCausalLM",
        dict(_COMMON, num_key_value_heads=1, head_dim=12, **_rope(rope_theta=1e4)),
    ),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        dict(
            _GQA,
            head_dim=12,
            query_pre_attn_scalar=20,
            sliding_window=6,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
            **_rope(rope_theta=1e4),
        ),
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        dict(
            _GQA,
            head_dim=12,
            query_pre_attn_scalar=20,
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": {
                    "rope_type": "linear",
                    "factor": 8.0,
                    "rope_theta": 1e6,
                },
            },
        ),
    ),
}

# The families that issue from the same weights under other names.
NESTED = "gemma3_nested"


def _randomise(model, seed):
    """Weights of a size that keeps every nonlinearity busy."""
    generator = torch.Generator().manual_seed(seed)
    gemma = "Gemma" in type(model).__name__
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = any(part in name for part in ("norm", "ln_", "layernorm"))
            if name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            elif is_norm:
                parameter.copy_(0.3 * noise + (0.0 if gemma else 1.0))
            elif any(part in name for part in ("wte", "wpe", "embed")):
                parameter.copy_(0.7 * noise)
            else:
                fan_in = min(parameter.shape)
                parameter.copy_(0.9 * noise / fan_in**0.5)


def build(family):
    """The Hugging Face model itself, float32, in evaluation mode."""
    config_class, model_class, arguments = FAMILIES[family]
    config = getattr(transformers, config_class)(**arguments)
    config._attn_implementation = "eager"
    model = getattr(transformers, model_class)(config)
    _randomise(model, zlib.crc32(family.encode()))
    return model.eval()


def write_tokenizer(folder):
    """A byte-level BPE tokenizer with a few merges, id 0 begins and ends text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("a", "n")]
    tokens = ["<|endoftext|>"] + letters + ["".join(pair) for pair in merges]
    tokenizer = Tokenizer(
        models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
    )
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<|endoftext|>",
                "eos_token": "<|endoftext|>",
            }
        )
    )


def make(family, folder, dtype=torch.float32, max_shard_size="1GB"):
    """Writes the family's model as a Hugging Face folder; returns the folder."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if family == NESTED:
        return _make_nested(folder)
    model = build(family).to(dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    write_tokenizer(folder)
    return folder


def _make_nested(folder):
    """gemma3 as the text part of a multimodal checkpoint."""
    from safetensors.torch import load_file, save_file

    make("gemma3", folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    renamed = {f"language_model.{name}": t for name, t in tensors.items()}
    renamed["vision_tower.patch.weight"] = torch.zeros(3)
    save_file(renamed, path)
    text = json.loads((folder / "config.json").read_text())
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    for name in [*FAMILIES, NESTED]:
        print(make(name, target / name))
