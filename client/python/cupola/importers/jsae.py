"""Jacobian SAE pairs: a folder with cfg.json and sae_weights.safetensors.

_W_enc [d_in, d_sae], _b_enc, _W_dec, _b_dec, the same with the suffix _out, and
perhaps the MLP they were trained around (mlp.W_in, b_in, W_out, b_out). The
folder is nearly what a server reads: it is checked, widened to float32, and its
defaults are said (apply_b_dec_to_input is true where it is absent).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from ._arrays import pick, read_safetensors
from ._failure import ImportFailed, short
from ._json import existing, read_json, take, take_or
from ._layout import (
    CONFIG,
    SPARSITY,
    WEIGHTS,
    Dictionary,
    Options,
    Tensors,
    check_shapes,
    only,
)
from .saelens import flattened

_NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")
_MLP = ("mlp.W_in", "mlp.b_in", "mlp.W_out", "mlp.b_out")
_KEPT = (
    *("hook_layer", "context_size", "prepend_bos", "dataset_path"),
    *("model_from_pretrained_kwargs", "sparsity_metric"),
    *("jacobian_coefficient",),
)


def read(source: Path, options: Options) -> Dictionary:
    config = flattened(read_json(source / CONFIG))
    path = existing(source / WEIGHTS)
    file = read_safetensors(path)
    _refuse(config)
    only(
        *(file, path.name, *_MLP),
        *(f"_{name}{suffix}" for suffix in ("", "_out") for name in _NAMES),
    )
    halves = [
        Dictionary(
            config["architecture"],
            {n: pick(file, path.name, f"_{n}{suffix}") for n in _NAMES},
            hook="",
            settings={"k": config["k"]} if config.get("k") else {},
        )
        for suffix in ("", "_out")
    ]
    d_in, d_sae, _ = check_shapes(halves[0])
    if check_shapes(halves[1]) != (d_in, d_sae, d_in):
        raise ImportFailed("the pair's two dictionaries differ in size")
    for key, size in (("d_in", d_in), ("d_sae", d_sae)):
        if take_or(config, key, int, CONFIG, size) != size:
            raise ImportFailed(
                f"{CONFIG} says {key} is {config[key]}, not {size}"
            )
    tensors = {
        f"_{name}{suffix}": half.tensors[name]
        for suffix, half in zip(("", "_out"), halves)
        for name in _NAMES
    }
    present = [name for name in _MLP if name in file]
    if present and len(present) < len(_MLP):
        raise ImportFailed(f"of the stored MLP there is only {present[0]}")
    tensors.update({name: file[name] for name in present})
    if present:
        _check_mlp(file, d_in)
    hook = options.hook or take(config, "hook_name", str, CONFIG)
    dictionary = Dictionary(
        *("jacobian pair", tensors, hook, options.hook_out),
        config=_config(config, hook),
    )
    _describe(dictionary, config, options, d_in, d_sae)
    if (source / SPARSITY).is_file():
        dictionary.sparsity = {
            name: tensor
            for name, tensor in read_safetensors(source / SPARSITY).items()
            if name in ("sparsity", "sparsity2")
        }
    for name, tensor in dictionary.sparsity.items():
        if tensor.shape != (d_sae,):
            raise ImportFailed(
                f"tensor {name} has the shape {list(tensor.shape)}, not "
                f"{[d_sae]}"
            )
    return dictionary


def _check_mlp(file: Tensors, d_in: int) -> None:
    d_mlp = file["mlp.b_in"].shape[:1]
    expected = ((d_in, *d_mlp), d_mlp, (*d_mlp, d_in), (d_in,))
    for name, shape in zip(_MLP, expected):
        if file[name].shape != shape or not d_mlp:
            raise ImportFailed(
                f"tensor {name} has the shape {list(file[name].shape)}, not "
                f"{list(shape)}"
            )


def _refuse(config: Dict[str, Any]) -> None:
    if take_or(config, "randomize_llm_weights", bool, CONFIG, False):
        raise ImportFailed(
            "the pair was trained on a model with random weights, which no "
            "server has"
        )
    if config.get("architecture") not in ("standard", "topk"):
        raise ImportFailed(
            f"{CONFIG} says architecture is "
            f"{short(config.get('architecture'))}: a pair's is standard or topk"
        )
    normalize = take_or(config, "normalize_activations", str, CONFIG, "none")
    if normalize != "none":
        raise ImportFailed(
            f"{CONFIG} says normalize_activations is {short(normalize)}: of a "
            "pair, none is imported"
        )
    if config.get("hook_head_index") is not None:
        raise ImportFailed("a dictionary of one attention head is not imported")


def _config(config: Dict[str, Any], hook: str) -> Dict[str, Any]:
    """The flat layout of the published pairs."""
    kept = {key: config[key] for key in _KEPT if config.get(key) is not None}
    return {
        "architecture": config["architecture"],
        "dtype": "float32",
        "apply_b_dec_to_input": take_or(
            config, "apply_b_dec_to_input", bool, CONFIG, True
        ),
        "normalize_activations": "none",
        "hook_name": hook,
        "hook_head_index": None,
        **kept,
        "is_pair": True,
        "use_jacobian_loss": True,
    }


def _describe(
    dictionary: Dictionary,
    config: Dict[str, Any],
    options: Options,
    d_in: int,
    d_sae: int,
) -> None:
    written = dictionary.config
    assert written is not None
    written.update(d_in=d_in, d_sae=d_sae)
    if config.get("k"):
        written.update(
            architecture="standard",
            activation_fn_str="topk",
            activation_fn_kwargs={"k": config["k"]},
        )
    model = options.model or take_or(config, "model_name", str, CONFIG, "")
    if model:
        written["model_name"] = model
    if options.hook_out:
        written["hook_name_out"] = options.hook_out
    if options.prepend_bos is not None:
        written["prepend_bos"] = options.prepend_bos
    if config.get("apply_b_dec_to_input") is True:
        dictionary.notes.append("b_dec is subtracted from the input")
    dictionary.model = model or None
