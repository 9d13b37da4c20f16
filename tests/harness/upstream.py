"""Dictionaries as other projects save them, with what they compute.

Each function writes files of one format with random weights, the way that
format's own code does, and returns them with its equations in float64 PyTorch:
`encode(x)` [rows, d_sae] and `decode(acts, x)` [rows, d_out].
"""

import contextlib
import gzip
import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import torch
from safetensors.torch import save_file

D_IN, D_SAE, K = 48, 203, 16
MODEL = "tiny"


class Upstream(NamedTuple):
    format: str
    source: Path
    encode: Callable[[torch.Tensor], torch.Tensor]
    decode: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    hook: str
    hook_out: Optional[str] = None
    options: Any = None  # of import_dictionary


def normal(seed, *shape, scale=1.0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * scale + offset


def weights(seed=0, d=D_IN, f=D_SAE):
    """W_enc [d, f], b_enc, W_dec [f, d] with rows of several lengths, b_dec:
    a minority of the latents is active on inputs of size 1."""
    lengths = torch.linspace(0.5, 1.5, f)[:, None]
    return {
        "W_enc": normal(seed, d, f, scale=d**-0.5),
        "b_enc": normal(seed + 1, f, scale=0.2, offset=-0.8),
        "W_dec": normal(seed + 2, f, d, scale=d**-0.5) * lengths,
        "b_dec": normal(seed + 3, d, scale=0.3),
    }


def double(values):
    return {name: value.double() for name, value in values.items()}


def top_k(pre, k):
    values, indices = pre.relu().topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, indices, values)


def jump(pre, threshold):
    return pre.relu() * (pre > threshold)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@contextlib.contextmanager
def config_class():
    """The class of transcoder_circuits' configurations, while it is pickled."""
    package, module = (
        types.ModuleType(n) for n in ("sae_training", "sae_training.config")
    )

    class LanguageModelSAERunnerConfig:
        pass

    LanguageModelSAERunnerConfig.__module__ = "sae_training.config"
    LanguageModelSAERunnerConfig.__qualname__ = "LanguageModelSAERunnerConfig"
    module.LanguageModelSAERunnerConfig = LanguageModelSAERunnerConfig
    sys.modules.update({"sae_training": package, "sae_training.config": module})
    try:
        yield LanguageModelSAERunnerConfig
    finally:
        del sys.modules["sae_training"], sys.modules["sae_training.config"]


def dunefsky(folder, d=D_IN, layer=1, suffix=".pt", transcoder=True, legacy=False):
    hook = (
        f"blocks.{layer}.ln2.hook_normalized"
        if transcoder
        else f"blocks.{layer}.hook_resid_pre"
    )
    state = weights(10, d)
    if transcoder:
        state["b_dec_out"] = normal(14, d, scale=0.3)
    state = {n: torch.nn.Parameter(t) for n, t in state.items()}
    stem = f"final_sparse_autoencoder_{MODEL}_{hook}_{D_SAE}"
    path = folder / (stem + suffix)
    with config_class() as kind:
        cfg = kind()
        cfg.__dict__.update(
            model_name="gpt2-small",
            hook_point=hook,
            hook_point_head_index=None,
            context_size=64,
            d_in=d,
            d_sae=D_SAE,
            dtype=torch.float32,
            device=torch.device("cpu"),
            is_transcoder=transcoder,
            out_hook_point=f"blocks.{layer}.hook_mlp_out" if transcoder else None,
            is_sparse_connection=False,
            use_ghost_grads=(False,),
            lr=4e-4,
        )
        module = torch.nn.Module()
        for name, value in state.items():
            module.register_parameter(name, value)
        saved = {"cfg": cfg, "state_dict": module.state_dict()}
        if suffix == ".pt":
            torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
        else:
            with gzip.open(path, "wb") as file:
                pickle.dump(saved, file)
    torch.save(
        normal(15, D_SAE, offset=-3.0), folder / f"{stem}_log_feature_sparsity.pt"
    )
    w = double({n: t.detach() for n, t in state.items()})
    return Upstream(
        "dunefsky",
        path,
        lambda x: ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(),
        lambda a, x: a @ w["W_dec"] + (w["b_dec_out"] if transcoder else w["b_dec"]),
        hook,
        f"blocks.{layer}.hook_mlp_out" if transcoder else None,
    )


def heindrich(folder, d=D_IN, layer=1):
    state = weights(20, d, 4 * d)
    path = folder / MODEL / "54_serene_plasma.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    write_json(
        path.with_suffix(".json"),
        {
            "layer": layer,
            "act": "mlp.hook_post",
            "expansion_factor": 4,
            "l1_coeff": [1e-4, 1.5e-4],
            "d_in": d,
            "reg": "l1",
        },
    )
    w = double(state)
    return Upstream(
        "heindrich",
        path,
        lambda x: ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(),
        lambda a, x: a @ w["W_dec"] + w["b_dec"],
        f"blocks.{layer}.mlp.hook_post",
    )


def jsae(folder, d=D_IN, d_mlp=0, layer=1, dtype=torch.float32, **config):
    halves = weights(30, d), weights(40, d)
    tensors = {
        f"_{name}{suffix}": tensor.to(dtype)
        for suffix, half in zip(("", "_out"), halves)
        for name, tensor in half.items()
    }
    if d_mlp:
        tensors["mlp.W_in"] = normal(50, d, d_mlp)
        tensors["mlp.b_in"] = normal(51, d_mlp)
        tensors["mlp.W_out"] = normal(52, d_mlp, d)
        tensors["mlp.b_out"] = normal(53, d)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    hook = f"blocks.{layer}.ln2.hook_normalized"
    write_json(
        folder / "cfg.json",
        {
            "architecture": "standard",
            "activation_fn_str": "topk",
            "activation_fn_kwargs": {"k": K},
            "d_in": d,
            "d_sae": D_SAE,
            "dtype": "float32",
            "apply_b_dec_to_input": False,
            "normalize_activations": "none",
            "model_name": MODEL,
            "hook_name": hook,
            "hook_layer": layer,
            "hook_head_index": None,
            "context_size": 128,
            "prepend_bos": True,
            "is_pair": True,
            "use_jacobian_loss": True,
            "model_from_pretrained_kwargs": {"center_writing_weights": False},
            "randomize_llm_weights": False,
            **config,
        },
    )
    save_file(
        {"sparsity": normal(54, D_SAE), "sparsity2": normal(55, D_SAE)},
        folder / "sparsity.safetensors",
    )
    w = double({n: t.to(dtype) for n, t in halves[0].items()})
    return Upstream(
        "jsae",
        folder,
        lambda x: top_k(x @ w["W_enc"] + w["b_enc"], K),
        lambda a, x: a @ w["W_dec"] + w["b_dec"],
        hook,
        f"blocks.{layer}.hook_mlp_out",
    )


def gemma_scope(folder, d=D_IN, layer=1, site="res", embedding=False, compressed=False):
    place = "embedding" if embedding else f"layer_{layer}"
    path = (
        folder
        / f"gemma-scope-2b-pt-{site}"
        / place
        / "width_16k"
        / "average_l0_20"
        / "params.npz"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    w = weights(60, d)
    w["threshold"] = normal(64, D_SAE, scale=0.1, offset=0.3)
    save = np.savez_compressed if compressed else np.savez
    save(path, **{n.replace("W_", "w_"): t.numpy() for n, t in w.items()})
    w = double(w)
    root = d**0.5 if embedding else 1  # from hook_embed to the embedding's rows
    hooks = {
        "res": "hook_resid_post",
        "mlp": "hook_mlp_out",
        "att": "attn.hook_z",
        "transcoders": "ln2.hook_normalized",
    }
    return Upstream(
        "gemma-scope",
        path.parent,
        lambda x: jump(x / root @ w["W_enc"] + w["b_enc"], w["threshold"]),
        lambda a, x: (a @ w["W_dec"] + w["b_dec"]) * root,
        "hook_embed" if embedding else f"blocks.{layer}.{hooks[site]}",
        f"blocks.{layer}.hook_mlp_out" if site == "transcoders" else None,
        {"model": MODEL},
    )


def gemma_scope_2(folder, d=D_IN, layer=1, transcoder=False):
    state = weights(110, d)
    saved = {n.replace("W_", "w_"): t for n, t in state.items()}
    saved["threshold"] = normal(114, D_SAE, scale=0.1, offset=0.3)
    place = f"model.layers.{layer}."
    config = {
        "architecture": "jump_relu",
        "model_name": MODEL,
        "hf_hook_point_in": place + "self_attn.o_proj.input",
        "affine_connection": transcoder,
    }
    if transcoder:
        saved["affine_skip_connection"] = normal(115, d, d, scale=d**-0.5)
        config["hf_hook_point_in"] = place + "pre_feedforward_layernorm.output"
        config["hf_hook_point_out"] = place + "post_feedforward_layernorm.output"
    folder = folder / f"layer_{layer}_width_16k_l0_small_affine"
    write_json(folder / "config.json", config)
    save_file(saved, folder / "params.safetensors")
    w = double(saved)

    def decode(a, x):
        skip = x @ w["affine_skip_connection"] if transcoder else 0
        return a @ w["w_dec"] + w["b_dec"] + skip

    return Upstream(
        "gemma-scope-2",
        folder,
        lambda x: jump(x @ w["w_enc"] + w["b_enc"], w["threshold"]),
        decode,
        f"blocks.{layer}." + ("mlp.hook_in" if transcoder else "attn.hook_z"),
        f"blocks.{layer}.hook_mlp_out" if transcoder else None,
    )


def llama_scope(folder, d=D_IN, layer=1, by_norm=False, transcoder=False):
    """With lm_saes' own arithmetic of 2024: parameters are brought to raw
    inputs and outputs, then to decoder rows of length 1 where `by_norm`.
    Activations are given in the scaled input's units, as SAELens does."""
    norms = {"in": 6.0, "out": 12.0} if transcoder else {"in": 20.0, "out": 20.0}
    state = weights(70, d)
    saved = {
        "encoder.weight": state["W_enc"].T.contiguous().bfloat16(),
        "encoder.bias": state["b_enc"].bfloat16(),
        "decoder.weight": state["W_dec"].T.contiguous().bfloat16(),
        "decoder.bias": state["b_dec"].bfloat16(),
    }
    hook = f"blocks.{layer}." + (
        "ln2.hook_normalized" if transcoder else "hook_resid_post"
    )
    out = f"blocks.{layer}.hook_mlp_out" if transcoder else hook
    write_json(
        folder / "hyperparams.json",
        {
            "hook_point_in": hook,
            "hook_point_out": out,
            "d_model": d,
            "d_sae": D_SAE,
            "act_fn": "jumprelu",
            "jump_relu_threshold": 0.5,
            "norm_activation": "dataset-wise",
            "dataset_average_activation_norm": norms,
            "apply_decoder_bias_to_pre_encoder": False,
            "sparsity_include_decoder_norm": by_norm,
            "use_glu_encoder": False,
        },
    )
    (folder / "checkpoints").mkdir()
    save_file(saved, folder / "checkpoints" / "final.safetensors")
    w = double(saved)
    s, t = (d**0.5 / norms[side] for side in ("in", "out"))
    bias, decoder = w["encoder.bias"] / s, w["decoder.weight"] * s / t
    norm = decoder.norm(dim=0) if by_norm else torch.ones(D_SAE).double()

    def encode(x):
        pre = (x @ w["encoder.weight"].T + bias) * norm
        return pre.where(pre > 0.5, 0.0) / norm * s

    return Upstream(
        "llama-scope",
        folder,
        encode,
        lambda a, x: (a / s * norm) @ (decoder / norm).T + w["decoder.bias"] / t,
        hook,
        out if transcoder else None,
        {"model": MODEL},
    )


def dictionary_learning(folder, kind="AutoEncoder", d=D_IN, layer=1, new=False):
    state = weights(80, d)
    linear = {
        "encoder.weight": state["W_enc"].T.contiguous(),
        "encoder.bias": state["b_enc"],
        "decoder.weight": state["W_dec"].T.contiguous(),
    }
    w = double(state)
    threshold = torch.tensor(0.4)
    gates = {
        n: normal(84 + i, D_SAE, scale=0.2, offset=-0.4)
        for i, n in enumerate(("gate_bias", "mag_bias", "r_mag"))
    }
    center = 0 if new or kind == "JumpReluAutoEncoder" else w["b_dec"]
    bare = {
        "AutoEncoder": {**linear, ("decoder.bias" if new else "bias"): state["b_dec"]},
        "GatedAutoEncoder": {
            "encoder.weight": linear["encoder.weight"],
            "decoder.weight": linear["decoder.weight"],
            "decoder_bias": state["b_dec"],
            **gates,
        },
        "AutoEncoderTopK": {
            **linear,
            "b_dec": state["b_dec"],
            "k": torch.tensor(K, dtype=torch.int),
            "threshold": torch.tensor(0.1),
        },
        "BatchTopKSAE": {
            **linear,
            "b_dec": state["b_dec"],
            "k": torch.tensor(K, dtype=torch.int),
            "threshold": threshold,
        },
        "MatryoshkaBatchTopKSAE": {
            **state,
            "k": torch.tensor(K, dtype=torch.int),
            "threshold": threshold,
            "group_sizes": torch.tensor([100, 103]),
        },
        "JumpReluAutoEncoder": {
            **state,
            "threshold": normal(88, D_SAE, scale=0.1, offset=0.4),
        },
    }[kind]
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(bare, folder / "ae.pt")
    trainer = {
        "dict_class": kind,
        "activation_dim": d,
        "dict_size": D_SAE,
        "layer": layer,
        "lm_name": MODEL,
        "submodule_name": f"resid_post_layer_{layer}",
    }
    if kind == "AutoEncoderTopK":
        trainer["k"] = K
    write_json(
        folder / "config.json",
        {"trainer": trainer, "buffer": {"d_submodule": d, "io": "out", "ctx_len": 128}},
    )

    # Of these two activations count in the lengths of W_dec's rows.
    counted = kind in ("GatedAutoEncoder", "JumpReluAutoEncoder")
    lengths = w["W_dec"].norm(dim=1) if counted else torch.ones(D_SAE).double()

    def encode(x):
        product = (x - center) @ w["W_enc"]
        if kind == "GatedAutoEncoder":
            g = double(gates)
            active = product + g["gate_bias"] > 0
            magnitude = (g["r_mag"].exp() * product + g["mag_bias"]).relu()
            return active * magnitude * lengths
        pre = product + w["b_enc"]
        if kind == "AutoEncoder":
            return pre.relu()
        if kind == "AutoEncoderTopK":
            return top_k(pre, K)
        return jump(pre, bare["threshold"].double()) * lengths

    return Upstream(
        "dictionary-learning",
        folder,
        encode,
        lambda a, x: (a / lengths) @ w["W_dec"] + w["b_dec"],
        f"blocks.{layer}.hook_resid_post",
    )


def sparsify(folder, d=D_IN, layer=1, transcode=False, skip=False, **config):
    state = weights(90, d)
    saved = {
        "encoder.weight": state["W_enc"].T.contiguous(),
        "encoder.bias": state["b_enc"],
        "W_dec": state["W_dec"],
        "b_dec": state["b_dec"],
    }
    if skip:
        saved["W_skip"] = normal(94, d, d, scale=d**-0.5)
    path = folder / (f"layers.{layer}.mlp" if transcode else f"layers.{layer}")
    path.mkdir(parents=True)
    save_file(saved, path / "sae.safetensors")
    write_json(
        path / "cfg.json",
        {
            "activation": "topk",
            "expansion_factor": 32,
            "normalize_decoder": not transcode,
            "num_latents": D_SAE,
            "k": K,
            "multi_topk": False,
            "skip_connection": skip,
            "transcode": transcode,
            "d_in": d,
            **config,
        },
    )
    write_json(folder / "config.json", {"model": MODEL})
    w = double(saved)
    center = 0 if transcode else w["b_dec"]
    return Upstream(
        "sparsify",
        path,
        lambda x: top_k((x - center) @ w["encoder.weight"].T + w["encoder.bias"], K),
        lambda a, x: a @ w["W_dec"] + w["b_dec"] + (x @ w["W_skip"].T if skip else 0),
        f"blocks.{layer}.mlp.hook_in"
        if transcode
        else f"blocks.{layer}.hook_resid_post",
        f"blocks.{layer}.hook_mlp_out" if transcode else None,
    )


def mwhanna(folder, d=D_IN, layer=1, jumprelu=False, skip=False):
    state = weights(100, d)
    saved = {**state, "W_enc": state["W_enc"].T.contiguous()}
    if jumprelu:
        saved["activation_function.threshold"] = normal(
            104, D_SAE, scale=0.1, offset=0.3
        )
    if skip:
        saved["W_skip"] = normal(105, d, d, scale=d**-0.5)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"layer_{layer}.safetensors"
    save_file({n: t.bfloat16() for n, t in saved.items()}, path)
    (folder / "config.yaml").write_text(
        f"model_name: {MODEL}\nmodel_kind: transcoder_set\n"
        'feature_input_hook: "mlp.hook_in"\nfeature_output_hook: mlp.hook_out\n'
        "transcoders:\n  - hf://a/b/layer_0.safetensors\n"
    )
    (folder / "wandb-config.yaml").write_text(
        f"d_model:\n  value: {d}\nd_feature:\n  value: {D_SAE}\n"
        "batch_size:\n  value: 128\n"
    )
    w = double({n: t.bfloat16() for n, t in saved.items()})

    def encode(x):
        pre = x @ w["W_enc"].T + w["b_enc"]
        return jump(pre, w["activation_function.threshold"]) if jumprelu else pre.relu()

    return Upstream(
        "mwhanna",
        path,
        encode,
        lambda a, x: a @ w["W_dec"] + w["b_dec"] + (x @ w["W_skip"].T if skip else 0),
        f"blocks.{layer}.mlp.hook_in",
        f"blocks.{layer}.hook_mlp_out",
    )


# name: how its files are made
ALL = {
    "dunefsky": dunefsky,
    "dunefsky-legacy": lambda f, **o: dunefsky(f, legacy=True, **o),
    "dunefsky-pickle": lambda f, **o: dunefsky(f, suffix=".pkl.gz", **o),
    "dunefsky-sae": lambda f, **o: dunefsky(f, transcoder=False, **o),
    "heindrich": heindrich,
    "jsae": jsae,
    "jsae-half": lambda f, **o: jsae(f, dtype=torch.float16, **o),
    "gemma-res": gemma_scope,
    "gemma-compressed": lambda f, **o: gemma_scope(f, compressed=True, **o),
    "gemma-mlp": lambda f, **o: gemma_scope(f, site="mlp", **o),
    "gemma-transcoder": lambda f, **o: gemma_scope(f, site="transcoders", **o),
    "gemma-embedding": lambda f, **o: gemma_scope(f, embedding=True, **o),
    "gemma-2-attention": gemma_scope_2,
    "gemma-2-transcoder": lambda f, **o: gemma_scope_2(f, transcoder=True, **o),
    "llama-scope": llama_scope,
    "llama-scope-norm": lambda f, **o: llama_scope(f, by_norm=True, **o),
    "llama-scope-transcoder": lambda f, **o: llama_scope(
        f, by_norm=True, transcoder=True, **o
    ),
    "dl-standard": dictionary_learning,
    "dl-new": lambda f, **o: dictionary_learning(f, new=True, **o),
    "dl-gated": lambda f, **o: dictionary_learning(f, "GatedAutoEncoder", **o),
    "dl-topk": lambda f, **o: dictionary_learning(f, "AutoEncoderTopK", **o),
    "dl-batchtopk": lambda f, **o: dictionary_learning(f, "BatchTopKSAE", **o),
    "dl-matryoshka": lambda f, **o: dictionary_learning(
        f, "MatryoshkaBatchTopKSAE", **o
    ),
    "dl-jumprelu": lambda f, **o: dictionary_learning(f, "JumpReluAutoEncoder", **o),
    "sparsify": sparsify,
    "sparsify-transcoder": lambda f, **o: sparsify(f, transcode=True, **o),
    "sparsify-skip": lambda f, **o: sparsify(f, transcode=True, skip=True, **o),
    "mwhanna": mwhanna,
    "mwhanna-jumprelu": lambda f, **o: mwhanna(f, jumprelu=True, skip=True, **o),
}


def make(name, folder, **options):
    folder.mkdir(parents=True, exist_ok=True)
    return ALL[name](folder, **options)
