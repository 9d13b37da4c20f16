"""Llama Scope: hyperparams.json and checkpoints/final.safetensors in a folder.

encoder.weight [d_sae, d_in], encoder.bias, decoder.weight [d_out, d_sae],
decoder.bias, for inputs that were scaled by s = sqrt(d_in) / (their average
norm) and outputs likewise by t; a latent is active where
(x W_enc + b_enc / s) > jump_relu_threshold, with the decoder's row norm (in
outputs' units, times s / t) as a factor where sparsity_include_decoder_norm is
set (lm_saes of 2024).

The scales are folded: W_enc * s, W_dec / t, b_dec / t, b_enc as it is, and
thresholds * s (with row norms n: * t / n). Activations are those of the scaled
input, as SAELens gives them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from ._arrays import pick, read_safetensors
from ._failure import ImportFailed
from ._hooks import required
from ._json import existing, number, read_json, take, take_or
from ._layout import (
    Dictionary,
    Options,
    Tensors,
    only,
    row_norms,
    scaled,
    stored,
    transposed,
)
from ._safetensors import LazyTensor

_FILE = "hyperparams.json"
_CANDIDATES = (
    "sae_weights.safetensors",
    "checkpoints/pruned.safetensors",
    "checkpoints/final.safetensors",
)
_MODEL = "meta-llama/Llama-3.1-8B"
# Finite, and above every activation: the threshold of a latent without a row.
_NEVER = 1e30


def read(source: Path, options: Options) -> Dictionary:
    config = read_json(source / _FILE)
    found = [source / name for name in _CANDIDATES if (source / name).is_file()]
    path = existing(found[0] if found else source / _CANDIDATES[-1])
    file = read_safetensors(path)
    _refuse(config)
    only(
        *(file, path.name, "encoder.weight", "encoder.bias"),
        *("decoder.weight", "decoder.bias"),
    )
    tensors: Tensors = {
        "W_enc": transposed(pick(file, path.name, "encoder.weight")),
        "b_enc": pick(file, path.name, "encoder.bias"),
        "W_dec": transposed(pick(file, path.name, "decoder.weight")),
        "b_dec": pick(file, path.name, "decoder.bias"),
    }
    s, t = _scales(config)
    place = take_or(config, "hook_point_in", str, _FILE, "")
    hook = options.hook or required(place, "where its input is", "--hook")
    out = take_or(config, "hook_point_out", str, _FILE, place)
    transcoder = out != place  # whatever --hook calls its input
    if options.hook_out:
        out, transcoder = options.hook_out, options.hook_out != hook
    notes = [f"inputs' scale {s:.6g} and outputs' {t:.6g} were folded in"]
    jump = number(config, "jump_relu_threshold", _FILE)
    if take(config, "sparsity_include_decoder_norm", bool, _FILE):
        threshold = _by_norm(tensors["W_dec"], jump * t)
        notes.append(
            "thresholds were divided by the decoder's row norms, which "
            "jump_relu_threshold counts in"
        )
    else:
        threshold = stored(tensors["b_enc"].shape, jump * s)
    subtracts = take_or(
        config, "apply_decoder_bias_to_pre_encoder", bool, _FILE, False
    )
    if subtracts and transcoder:
        raise ImportFailed(
            f"{_FILE} says that a transcoder subtracts its output's bias from "
            "its input: that cannot be represented"
        )
    if subtracts and s != t:
        raise ImportFailed(
            f"{_FILE} says that the output's bias is subtracted from the input, "
            "and the two scales differ: that cannot be represented"
        )
    if not options.model:
        notes.append(f"{_FILE} names no model: {_MODEL} was taken")
    return Dictionary(
        architecture="jumprelu_transcoder" if transcoder else "jumprelu",
        tensors={
            "W_enc": scaled(tensors["W_enc"], s),
            "b_enc": tensors["b_enc"],
            "W_dec": scaled(tensors["W_dec"], 1 / t),
            "b_dec": scaled(tensors["b_dec"], 1 / t),
            "threshold": threshold,
        },
        hook=hook,
        hook_out=out if transcoder else None,
        model=options.model or _MODEL,
        prepend_bos=True,
        context_size=1024,
        settings={"apply_b_dec_to_input": True} if subtracts else {},
        notes=notes,
    )


def _refuse(config: Dict[str, Any]) -> None:
    # lm_saes' own default is relu, and its topk knows no threshold.
    act = take(config, "act_fn", str, _FILE).lower()
    if act != "jumprelu":
        raise ImportFailed(f"{_FILE} says act_fn is {act!r}, not jumprelu")
    if take_or(config, "use_glu_encoder", bool, _FILE, False):
        raise ImportFailed("a gated linear encoder cannot be represented")
    kind = take_or(config, "norm_activation", str, _FILE, "dataset-wise")
    if kind not in ("dataset-wise", "inference", "none"):
        raise ImportFailed(
            f"{_FILE} says norm_activation is {kind!r}: inputs that are scaled "
            "one by one cannot be folded"
        )


def _scales(config: Dict[str, Any]) -> Tuple[float, float]:
    kind = take_or(config, "norm_activation", str, _FILE, "dataset-wise")
    if kind != "dataset-wise":
        return 1.0, 1.0
    norms: Dict[str, Any] = take(
        config, "dataset_average_activation_norm", dict, _FILE
    )
    root = math.sqrt(take(config, "d_model", int, _FILE))
    scales: List[float] = []
    for side in ("in", "out") if norms.get("out") is not None else ("in", "in"):
        norm = number(norms, side, _FILE)
        if not 0 < norm < math.inf:
            raise ImportFailed(f"{_FILE} says the average norm is {norm}")
        scales.append(root / norm)
    return scales[0], scales[1]


def _by_norm(W_dec: LazyTensor, threshold: float) -> LazyTensor:
    norms = row_norms(W_dec)

    def load() -> Any:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            values = np.nan_to_num(threshold / norms(), nan=_NEVER)
        return np.clip(values, -_NEVER, _NEVER).astype("<f4")

    return LazyTensor(W_dec.shape[:1], load)
