"""SAELens folders of both generations, written anew in the layout of version 6.

The old generation's defaults (prepend_bos and apply_b_dec_to_input are true,
hook_z is flattened where the hook's name has it, a "topk" activation makes the
architecture topk) are said in full, sparsity.safetensors is kept, and
expected_average_only_in with a known factor s is folded: W_enc * s, W_dec / s,
b_dec / s; b_enc and thresholds stay (they already live in the scaled space).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Tuple, Type, Union

import numpy as np

from ._arrays import read_safetensors
from ._failure import ImportFailed, short
from ._hooks import required
from ._json import existing, number, read_json, take, take_or
from ._layout import (
    CONFIG,
    SPARSITY,
    WEIGHTS,
    Dictionary,
    Options,
    only,
    scaled,
)

_BIASED = ("W_enc", "b_enc", "W_dec", "b_dec")
_TENSORS = {
    "standard": _BIASED,
    "topk": _BIASED,
    "jumprelu": (*_BIASED, "threshold"),
    "gated": ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
    "matching_pursuit": ("W_dec", "b_dec"),
    "transcoder": _BIASED,
    "skip_transcoder": (*_BIASED, "W_skip"),
    "jumprelu_transcoder": (*_BIASED, "threshold"),
    "jumprelu_skip_transcoder": (*_BIASED, "threshold", "W_skip"),
}
# Of the architectures, and of the input's treatment.
_SETTINGS: Dict[str, Union[Type[Any], Tuple[Type[Any], ...]]] = {
    "k": int,
    "rescale_acts_by_decoder_norm": bool,
    "residual_threshold": (int, float),
    "max_iterations": int,
    "stop_on_duplicate_support": bool,
    "normalize_activations": str,
    "reshape_activations": str,
    "finetuning_scaling_factor": bool,
    "apply_b_dec_to_input": bool,
}
_VALUES = {
    "reshape_activations": ("none", "hook_z"),
    "normalize_activations": (
        *("none", "expected_average_only_in", "constant_norm_rescale"),
        "layer_norm",
    ),
}
_METADATA = ("model_from_pretrained_kwargs", "dataset_path", "neuronpedia_id")


def read(source: Path, options: Options) -> Dictionary:
    config = flattened(read_json(source / CONFIG))
    path = existing(source / WEIGHTS)
    file = read_safetensors(path)
    if "_W_enc" in file:
        raise ImportFailed("the tensors are a Jacobian pair's: import jsae")
    architecture = take(config, "architecture", str, CONFIG)
    names = _TENSORS.get(architecture)
    if names is None:
        raise ImportFailed(
            f"{CONFIG} says architecture is {short(architecture)}: imported "
            "are " + ", ".join(_TENSORS)
        )
    missing = [name for name in names if name not in file]
    if missing:
        raise ImportFailed(f"{path.name} lacks {', '.join(missing)}")
    if config.get("hook_head_index") is not None:
        raise ImportFailed("a dictionary of one attention head is not imported")
    only(file, path.name, *names, "scaling_factor")
    transcoder = architecture.endswith("transcoder")
    settings = _settings(config)
    if settings.setdefault("apply_b_dec_to_input", not transcoder):
        if transcoder:
            raise ImportFailed(
                f"{CONFIG} says apply_b_dec_to_input is true: a transcoder's "
                "b_dec is its output's"
            )
    hook = options.hook or take(config, "hook_name", str, CONFIG)
    if not hook.endswith(".hook_z"):  # the one it was, perhaps
        settings.pop("reshape_activations", None)
    hook_out = options.hook_out
    if transcoder and not hook_out:
        hook_out = required(
            take_or(config, "hook_name_out", str, CONFIG, ""),
            "where the output belongs",
            "--hook-out",
        )
    dictionary = Dictionary(
        architecture=architecture,
        tensors={name: file[name] for name in names},
        hook=hook,
        hook_out=hook_out,
        model=options.model
        or take_or(config, "model_name", str, CONFIG, "")
        or None,
        prepend_bos=take(config, "prepend_bos", bool, CONFIG)
        if config.get("prepend_bos") is not None
        else None,
        context_size=take_or(config, "context_size", int, CONFIG, 0) or None,
        settings=settings,
        metadata={k: config[k] for k in _METADATA if config.get(k) is not None},
    )
    if "scaling_factor" in file:
        factors = file["scaling_factor"]
        if settings.get("finetuning_scaling_factor"):
            dictionary.tensors["scaling_factor"] = factors
        elif not np.allclose(factors.load(), 1):
            raise ImportFailed(
                f"{path.name} has scaling_factor, and {CONFIG} does not say "
                "finetuning_scaling_factor"
            )
    _normalize(dictionary, config, options)
    if (source / SPARSITY).is_file():
        sparsity = read_safetensors(source / SPARSITY)
        if "sparsity" in sparsity:
            dictionary.sparsity["sparsity"] = sparsity["sparsity"]
    return dictionary


def _settings(config: Dict[str, Any]) -> Dict[str, Any]:
    settings = {
        key: take(config, key, kind, CONFIG)
        for key, kind in _SETTINGS.items()
        if config.get(key) is not None
    }
    for key, accepted in _VALUES.items():
        if settings.get(key, "none") not in accepted:
            raise ImportFailed(
                f"{CONFIG} says {key} is {short(settings[key])}: imported are "
                + ", ".join(accepted)
            )
    return settings


def flattened(config: Dict[str, Any]) -> Dict[str, Any]:
    """One flat object with version 6's keys out of either generation's."""
    metadata = take_or(config, "metadata", dict, CONFIG, {})
    flat = {k: v for k, v in config.items() if k != "metadata"}
    for key, value in metadata.items():
        if flat.get(key) is None:
            flat[key] = value
    if not _before_6(take_or(flat, "sae_lens_version", str, CONFIG, "")):
        return flat
    for old, new in (
        ("hook_point", "hook_name"),
        ("hook_point_head_index", "hook_head_index"),
        ("activation_fn_str", "activation_fn"),
    ):
        if flat.get(old) is not None and flat.get(new) is None:
            flat[new] = flat[old]
        flat.pop(old, None)
    hook = take_or(flat, "hook_name", str, CONFIG, "")
    kind = take_or(flat, "architecture", str, CONFIG, "standard")
    for key, value in (
        ("prepend_bos", True),
        ("apply_b_dec_to_input", not kind.endswith("transcoder")),
        ("architecture", kind),
        ("reshape_activations", "hook_z" if "hook_z" in hook else "none"),
    ):
        if flat.get(key) is None:
            flat[key] = value
    activation = take_or(
        *(flat, "activation_fn", str, CONFIG),
        "topk" if kind == "topk" and flat.get("k") is None else "relu",
    )
    if activation == "topk":
        kwargs: Dict[str, Any] = take(
            flat, "activation_fn_kwargs", dict, CONFIG
        )
        flat["architecture"] = "topk"
        flat["k"] = take(kwargs, "k", int, CONFIG)
    elif activation != "relu":
        raise ImportFailed(
            f"{CONFIG} says activation_fn is {short(activation)}: relu and "
            "topk are imported"
        )
    if isinstance(flat.get("normalize_activations"), bool):
        flat["normalize_activations"] = (
            "expected_average_only_in"
            if flat["normalize_activations"]
            else "none"
        )
    return flat


def _before_6(version: str) -> bool:
    """By PEP 440: 6.0.0's development and beta releases come before it."""
    if not version:
        return True
    found = re.match(r"(\d+)((?:\.\d+)*)(.*)", version)
    if not found or len(version) > 64:
        raise ImportFailed(
            f"{CONFIG} says sae_lens_version is {short(version)}"
        )
    if int(found[1]) != 6 or any(int(n) for n in found[2].split(".")[1:]):
        return int(found[1]) < 6
    return bool(re.match(r"[.-]?(a|b|dev)", found[3]))


def _normalize(
    dictionary: Dictionary, config: Dict[str, Any], options: Options
) -> None:
    kind = dictionary.settings.get("normalize_activations", "none")
    factor = options.norm_scaling_factor
    if kind != "expected_average_only_in":
        if factor is not None:
            raise ImportFailed(
                f"--norm-scaling-factor: normalize_activations is {kind!r}"
            )
        return
    if factor is None and config.get("norm_scaling_factor") is not None:
        factor = number(config, "norm_scaling_factor", CONFIG)
    if factor is None:
        dictionary.settings["normalize_activations"] = "none"
        dictionary.notes.append(
            "normalize_activations is expected_average_only_in, and nothing "
            "says its factor: inputs are used as they are. Where the factor "
            "was not folded in already, give --norm-scaling-factor"
        )
        return
    if not 0 < factor < float("inf"):
        raise ImportFailed(f"norm_scaling_factor is {factor}: give one above 0")
    if dictionary.architecture == "matching_pursuit":
        dictionary.settings["norm_scaling_factor"] = factor
        return  # its weights are tied: a server scales what can be scaled
    tensors = dictionary.tensors
    tensors["W_enc"] = scaled(tensors["W_enc"], factor)
    for name in ("W_dec", "b_dec"):
        tensors[name] = scaled(tensors[name], 1 / factor)
    dictionary.settings["normalize_activations"] = "none"
    dictionary.notes.append(f"the input's scale {factor:.6g} was folded in")
