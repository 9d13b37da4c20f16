"""TransformerLens models around the Hugging Face models of make_models."""

import math

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained import weight_conversions as convert

from make_models import FAMILIES

# Families whose biases TransformerLens' conversion leaves out.
UNSUPPORTED = {"llama_biased"}

_CONVERT = {
    "gpt2": convert.convert_gpt2_weights,
    "gpt_neo": convert.convert_neo_weights,
    "gpt_neox": convert.convert_neox_weights,
    "gptj": convert.convert_gptj_weights,
    "llama": convert.convert_llama_weights,
    "mistral": convert.convert_mistral_weights,
    "qwen2": convert.convert_qwen2_weights,
    "qwen3": convert.convert_qwen3_weights,
    "gemma": convert.convert_gemma_weights,
    "gemma2": convert.convert_gemma_weights,
    "gemma3_text": convert.convert_gemma_weights,
}


def _window(hf):
    """(window, TransformerLens' attn_types), from what Hugging Face computes with."""
    if hf.model_type == "gpt_neo":
        return hf.window_size, list(hf.attention_layers)
    window = getattr(hf, "sliding_window", None)
    if window is None:
        return None, None
    if hf.model_type == "mistral":
        return window, ["local"] * hf.num_hidden_layers
    kinds = {"sliding_attention": "local", "full_attention": "global"}
    return window, [kinds[kind] for kind in hf.layer_types]


def _rotary(hf, d_head):
    if hf.model_type == "gptj":
        return dict(
            positional_embedding_type="rotary",
            rotary_dim=hf.rotary_dim,
            rotary_adjacent_pairs=True,
        )
    rope = hf.rope_parameters
    settings = dict(positional_embedding_type="rotary", rotary_adjacent_pairs=False)
    if "full_attention" in rope:
        settings["rotary_base_local"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    settings["rotary_base"] = rope["rope_theta"]
    settings["rotary_dim"] = int(rope.get("partial_rotary_factor", 1) * d_head)
    if rope["rope_type"] == "linear":
        settings["rotary_scaling_factor"] = rope["factor"]
    if rope["rope_type"] == "llama3":
        settings.update(
            use_NTK_by_parts_rope=True,
            NTK_by_parts_low_freq_factor=rope["low_freq_factor"],
            NTK_by_parts_high_freq_factor=rope["high_freq_factor"],
            NTK_by_parts_factor=rope["factor"],
            NTK_original_ctx_len=rope["original_max_position_embeddings"],
        )
    return settings


def config_of(hf):
    """TransformerLens' configuration of a Hugging Face configuration."""
    kind = hf.model_type
    heads = hf.num_attention_heads
    d_head = getattr(hf, "head_dim", None) or hf.hidden_size // heads
    gpt = kind in ("gpt2", "gpt_neo", "gptj", "gpt_neox")
    gemma = kind.startswith("gemma")
    activation = getattr(hf, "activation_function", None)
    activation = activation or getattr(hf, "hidden_activation", None)
    inner = getattr(hf, "n_inner", None) or getattr(hf, "intermediate_size", None)
    settings = dict(
        n_layers=hf.num_hidden_layers,
        d_model=hf.hidden_size,
        n_ctx=hf.max_position_embeddings,
        d_head=d_head,
        n_heads=heads,
        d_mlp=inner or 4 * hf.hidden_size,
        d_vocab=hf.vocab_size,
        act_fn=activation or hf.hidden_act,
        eps=next(
            getattr(hf, name)
            for name in ("layer_norm_epsilon", "layer_norm_eps", "rms_norm_eps")
            if hasattr(hf, name)
        ),
        normalization_type="LN" if gpt else "RMS",
        final_rms=not gpt,
        gated_mlp=not gpt,
        parallel_attn_mlp=kind == "gptj"
        or (kind == "gpt_neox" and hf.use_parallel_residual),
        use_attn_result=True,
        use_hook_mlp_in=True,
        original_architecture=hf.architectures[0] if hf.architectures else None,
        device="cpu",
        seed=0,
    )
    if kind == "gpt_neo":
        settings["use_attn_scale"] = False
    if kind == "gpt2":
        settings["scale_attn_by_inverse_layer_idx"] = (
            hf.scale_attn_by_inverse_layer_idx
        )
    if kind not in ("gpt2", "gpt_neo"):
        settings.update(_rotary(hf, d_head))
    if not gpt:
        # The conversions of these families assume grouped heads or not.
        kv_heads = hf.num_key_value_heads
        if kv_heads != heads or gemma or kind in ("mistral", "qwen2"):
            settings["n_key_value_heads"] = kv_heads
    settings["use_qk_norm"] = kind in ("qwen3", "gemma3_text")
    if kind in ("gemma2", "gemma3_text"):
        settings.update(
            use_normalization_before_and_after=True,
            attn_scale=math.sqrt(hf.query_pre_attn_scalar),
        )
    if kind == "gemma2":
        settings.update(
            attn_scores_soft_cap=hf.attn_logit_softcapping,
            output_logits_soft_cap=hf.final_logit_softcapping,
        )
    window, kinds = _window(hf)
    if window is not None:
        settings.update(use_local_attn=True, window_size=window, attn_types=kinds)
    return HookedTransformerConfig(**settings)


def hooked(family, hf_model, folded):
    """The model under TransformerLens' processing: none, or its default."""
    assert family in FAMILIES and family not in UNSUPPORTED
    cfg = config_of(hf_model.config)
    weights = _CONVERT[hf_model.config.model_type](hf_model, cfg)
    model = HookedTransformer(cfg, move_to_device=False)
    layer_norm = cfg.normalization_type == "LN"
    # As HookedTransformer.from_pretrained decides.
    model.load_and_process_state_dict(
        {name: tensor.detach().clone() for name, tensor in weights.items()},
        fold_ln=folded,
        center_writing_weights=folded and layer_norm,
        center_unembed=folded and not cfg.output_logits_soft_cap > 0,
        fold_value_biases=folded,
    )
    return model.eval()


@torch.no_grad()
def activations(model, tokens):
    """Every hook point of a pass, by name, and "logits"; further the outputs of
    the norms, by Cupola's names."""
    extra = {}
    handles = []

    def keep(name):
        def hook(module, inputs, output):
            extra[name] = output

        return hook

    for layer, block in enumerate(model.blocks):
        handles.append(
            block.ln1.register_forward_hook(keep(f"blocks.{layer}.ln1.hook_out"))
        )
        handles.append(
            block.ln2.register_forward_hook(keep(f"blocks.{layer}.mlp.hook_in"))
        )
    logits, cache = model.run_with_cache(tokens)
    for handle in handles:
        handle.remove()
    result = {**cache.cache_dict, **extra, "logits": logits}
    batch, positions = tokens.shape
    for name, value in result.items():
        if ".q_norm." in name or ".k_norm." in name:
            result[name] = value.reshape(batch, positions, -1, value.shape[-1])
    return {name: value.detach().numpy() for name, value in result.items()}
