"""dictionary_learning: a folder with ae.pt, a bare state dict, and config.json.

The class is `trainer.dict_class` of config.json:

  AutoEncoder           a = ReLU((x - b) W + b_enc); the "new" kind, which has a
                        decoder.bias and no bias, subtracts nothing
  GatedAutoEncoder      gate and magnitude from one product
  AutoEncoderTopK       the k largest of ReLU(...); its `threshold` is not used
  BatchTopKSAE, MatryoshkaBatchTopKSAE
                        a where a > threshold, one number for all latents: the
                        form that its authors evaluate
  JumpReluAutoEncoder   a threshold per latent; nothing is subtracted

Its GatedAutoEncoder and JumpReluAutoEncoder multiply activations by the lengths
n of W_dec's rows and decode what was divided by them again. With rows of length
1 that is the plain form: W_dec / n, and W_enc, biases and thresholds * n.

Rows of the others' W_dec are taken as stored; dictionary_learning's own loader
scales those of an AutoEncoder to length 1 and its activations with them, which
the catalog's fold_w_dec_norm does, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np

from ._arrays import pick
from ._failure import ImportFailed, short
from ._hooks import layer_in, refuse_before_norm
from ._json import existing, read_json, take, take_or
from ._layout import (
    Dictionary,
    Options,
    Tensors,
    only,
    row_norms,
    scalar,
    scaled_by,
    stored,
    transposed,
)
from ._torch_file import read_torch, tensors_of

_BATCH = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
_ARCHITECTURES = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "GatedAutoEncoder": "gated",
    "AutoEncoderTopK": "topk",
    "JumpReluAutoEncoder": "jumprelu",
    **{name: "jumprelu" for name in _BATCH},
}
_SITES = {
    "resid_post": "hook_resid_post",
    "resid_pre": "hook_resid_pre",
    "mlp_out": "hook_mlp_out",
    "mlp": "hook_mlp_out",
    "attn_out": "hook_attn_out",
    "attention_out": "hook_attn_out",
    "attn": "hook_attn_out",
}
_FILE = "config.json"
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_OURS = ("W_enc", "b_enc", "W_dec", "b_dec")
_BIASED = (*_LINEAR, *_OURS, "bias", "decoder_bias")
# What each class may store, the last ones for training alone.
_KNOWN: Dict[str, Tuple[str, ...]] = {
    "AutoEncoder": (*_BIASED, "decoder.bias"),
    "AutoEncoderNew": (*_BIASED, "decoder.bias"),
    "GatedAutoEncoder": (
        *("W_enc", "W_dec", "b_dec", "encoder.weight", "decoder.weight"),
        *("bias", "decoder_bias", "gate_bias", "mag_bias", "r_mag"),
    ),
    "AutoEncoderTopK": (*_BIASED, "k", "threshold"),
    "JumpReluAutoEncoder": (*_BIASED, "threshold"),
    **{name: (*_BIASED, "k", "threshold", "group_sizes") for name in _BATCH},
}


def read(source: Path, options: Options) -> Dictionary:
    folder = source if source.is_dir() else source.parent
    path = existing(folder / "ae.pt")
    config = read_json(folder / _FILE)
    trainer: Dict[str, Any] = take(config, "trainer", dict, _FILE)
    buffer: Dict[str, Any] = take_or(config, "buffer", dict, _FILE, {})
    file = tensors_of(read_torch(path), path.name)
    kind = take(trainer, "dict_class", str, _FILE)
    architecture = _ARCHITECTURES.get(kind)
    if architecture is None:
        raise ImportFailed(
            f"{_FILE} says dict_class is {short(kind)}: imported are "
            + ", ".join(_ARCHITECTURES)
        )
    only(file, path.name, *_KNOWN[kind])
    tensors: Tensors = {
        "W_enc": _matrix(file, path.name, "W_enc", "encoder.weight"),
        "W_dec": _matrix(file, path.name, "W_dec", "decoder.weight"),
        "b_dec": pick(
            file, path.name, "b_dec", "bias", "decoder_bias", "decoder.bias"
        ),
    }
    # The "new" autoencoder alone calls it the decoder's.
    subtracts = kind != "JumpReluAutoEncoder" and "decoder.bias" not in file
    settings: Dict[str, Any] = {"apply_b_dec_to_input": subtracts}
    if architecture == "gated":
        tensors["b_gate"] = pick(file, path.name, "gate_bias")
        tensors["b_mag"] = pick(file, path.name, "mag_bias")
        tensors["r_mag"] = pick(file, path.name, "r_mag")
    else:
        tensors["b_enc"] = pick(file, path.name, "b_enc", "encoder.bias")
    if architecture == "topk":
        settings["k"] = _k(trainer, file)
    notes = []
    if architecture == "jumprelu":
        tensors["threshold"] = pick(file, path.name, "threshold")
        if tensors["threshold"].shape == ():
            value = scalar(tensors["threshold"])
            tensors["threshold"] = stored(tensors["b_enc"].shape, value)
            notes.append(f"all latents have the one threshold {value:.6g}")
    if kind in ("GatedAutoEncoder", "JumpReluAutoEncoder"):
        notes.append(_fold(tensors))
    model = options.model or take_or(trainer, "lm_name", str, _FILE, "")
    submodule = take_or(trainer, "submodule_name", str, _FILE, "")
    if not submodule and not options.hook:
        notes.append("config.json names no submodule: resid_post was taken")
    return Dictionary(
        architecture=architecture,
        tensors=tensors,
        hook=options.hook or _hook(trainer, buffer, submodule, model),
        model=model or None,
        context_size=take_or(buffer, "ctx_len", int, _FILE, 0) or None,
        settings=settings,
        notes=notes,
    )


def _matrix(file: Tensors, name: str, ours: str, theirs: str) -> Any:
    """[rows, columns] as we have it, or a Linear's weight, transposed."""
    if ours in file:
        return file[ours]
    return transposed(pick(file, name, theirs, ours))


def _fold(tensors: Tensors) -> str:
    W_dec = tensors["W_dec"]
    if len(W_dec.shape) != 2:
        raise ImportFailed("the source gives no matrix W_dec")
    norms = row_norms(W_dec)

    def lengths() -> Any:  # of a row of zeros: what does not divide by zero
        return np.maximum(norms(), 1e-8)

    for name in ("W_enc", "b_enc", "b_gate", "b_mag", "threshold"):
        if name in tensors:
            tensors[name] = scaled_by(tensors[name], lengths)
    tensors["W_dec"] = scaled_by(W_dec, lambda: 1 / lengths()[:, None])
    return "activations count in the lengths of W_dec's rows: folded in"


def _k(trainer: Dict[str, Any], file: Tensors) -> int:
    k: Optional[int] = take_or(trainer, "k", int, _FILE, 0) or None
    stored_k: Optional[int] = None
    if "k" in file:
        value = scalar(file["k"])
        if not 1 <= value < 1e9 or value != int(value):
            raise ImportFailed(f"k is {value} in ae.pt")
        stored_k = int(value)
    if k is None and stored_k is None:
        raise ImportFailed(f"neither {_FILE} nor ae.pt says k")
    if k is not None and stored_k is not None and k != stored_k:
        raise ImportFailed(f"k is {k} in {_FILE} and {stored_k} in ae.pt")
    return k or stored_k or 0


def _hook(
    trainer: Dict[str, Any], buffer: Dict[str, Any], submodule: str, model: str
) -> str:
    io = buffer.get("io", "out")
    if io != "out":
        raise ImportFailed(
            f"{_FILE} says that a submodule's {short(io)} was read, not its "
            "output: give --hook"
        )
    layer = layer_in(submodule)
    if layer is None:
        layer = take(trainer, "layer", int, _FILE)
    if take_or(trainer, "layer", int, _FILE, layer) != layer:
        raise ImportFailed(
            f"{_FILE} says submodule_name is {short(submodule)} and layer "
            f"{short(trainer['layer'])}: give --hook"
        )
    if not submodule:
        return f"blocks.{layer}.hook_resid_post"
    for site, hook in sorted(_SITES.items(), key=lambda s: -len(s[0])):
        if submodule.startswith(site):
            if not hook.startswith("hook_resid"):
                refuse_before_norm(submodule, model)
            return f"blocks.{layer}.{hook}"
    raise ImportFailed(
        f"{_FILE} says submodule_name is {short(submodule)}: give --hook"
    )
