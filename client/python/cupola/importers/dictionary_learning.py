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

Rows of W_dec are taken as stored; dictionary_learning's own loader scales those
of an AutoEncoder to length 1 and its activations with them, which the catalog's
fold_w_dec_norm does, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

from ._arrays import pick
from ._failure import ImportFailed
from ._hooks import layer_in
from ._json import existing, read_json, take, take_or
from ._layout import Dictionary, Options, Tensors, scalar, stored, transposed
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
            f"{_FILE} says dict_class is {kind!r}: imported are "
            + ", ".join(_ARCHITECTURES)
        )
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
    submodule = take_or(trainer, "submodule_name", str, _FILE, "")
    if not submodule and not options.hook:
        notes.append("config.json names no submodule: resid_post was taken")
    return Dictionary(
        architecture=architecture,
        tensors=tensors,
        hook=options.hook or _hook(trainer, buffer, submodule),
        model=options.model
        or take_or(trainer, "lm_name", str, _FILE, "")
        or None,
        context_size=take_or(buffer, "ctx_len", int, _FILE, 0) or None,
        settings=settings,
        notes=notes,
    )


def _matrix(file: Tensors, name: str, ours: str, theirs: str) -> Any:
    """[rows, columns] as we have it, or a Linear's weight, transposed."""
    if ours in file:
        return file[ours]
    return transposed(pick(file, name, theirs, ours))


def _k(trainer: Dict[str, Any], file: Tensors) -> int:
    k: Optional[int] = take_or(trainer, "k", int, _FILE, 0) or None
    stored_k = round(scalar(file["k"])) if "k" in file else None
    if k is None and stored_k is None:
        raise ImportFailed(f"neither {_FILE} nor ae.pt says k")
    if k is not None and stored_k is not None and k != stored_k:
        raise ImportFailed(f"k is {k} in {_FILE} and {stored_k} in ae.pt")
    return k or stored_k or 0


def _hook(
    trainer: Dict[str, Any], buffer: Dict[str, Any], submodule: str
) -> str:
    io = buffer.get("io", "out")
    if io != "out":
        raise ImportFailed(
            f"{_FILE} says that a submodule's {io!r} was read, not its output: "
            "give --hook"
        )
    layer = layer_in(submodule)
    if layer is None:
        layer = take(trainer, "layer", int, _FILE)
    if not submodule:
        return f"blocks.{layer}.hook_resid_post"
    for site, hook in sorted(_SITES.items(), key=lambda s: -len(s[0])):
        if submodule.startswith(site):
            return f"blocks.{layer}.{hook}"
    raise ImportFailed(
        f"{_FILE} says submodule_name is {submodule!r}: give --hook"
    )
