"""Transcoders (and SAEs) of Dunefsky et al., as transcoder_circuits saves them.

One file, .pt or .pkl.gz: {"cfg": a pickled dataclass, "state_dict": W_enc
[d_in, d_sae], b_enc, W_dec [d_sae, d_out], b_dec [d_in], b_dec_out [d_out]}.

    a = ReLU((x - b_dec) W_enc + b_enc);  y = a W_dec + b_dec_out

A transcoder in SAELens' layout subtracts nothing from its input, so b_dec goes
into b_enc: b_enc - b_dec W_enc. The model they were trained on is
TransformerLens' with its default processing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import numpy as np

from ._failure import ImportFailed
from ._hooks import required
from ._json import existing, take, take_or
from ._layout import Dictionary, Options, only
from ._pickle import Record
from ._safetensors import LazyTensor
from ._torch_file import read_torch, tensors_of

_CLASSES = frozenset(
    f"{module}.LanguageModelSAERunnerConfig"
    for module in ("sae_training.config", "sae_lens.training.config")
)
_NAMES = ["W_enc", "b_enc", "W_dec", "b_dec"]
_SUFFIX = "_log_feature_sparsity"
# What TransformerLens does to a model unless told otherwise.
_PROCESSED = {
    "fold_ln": True,
    "center_writing_weights": True,
    "center_unembed": True,
    "fold_value_biases": True,
}


def read(source: Path, options: Options) -> Dictionary:
    path = existing(source)
    saved = read_torch(path, _CLASSES)
    if not isinstance(saved, dict) or not {"cfg", "state_dict"} <= set(saved):
        raise ImportFailed(
            f"{path.name} is not {{'cfg': ..., 'state_dict': ...}}, as "
            "transcoder_circuits saves it"
        )
    config = _config(saved["cfg"])
    tensors = tensors_of(saved["state_dict"], path.name, _NAMES)
    transcoder = take_or(config, "is_transcoder", bool, "cfg", False)
    only(tensors, path.name, *_NAMES, *(["b_dec_out"] if transcoder else []))
    if take_or(config, "is_sparse_connection", bool, "cfg", False):
        raise ImportFailed("sparse connections between SAEs are not imported")
    if config.get("hook_point_head_index") is not None:
        raise ImportFailed("a dictionary of one attention head is not imported")
    dictionary = Dictionary(
        architecture="transcoder" if transcoder else "standard",
        tensors={n: tensors[n] for n in _NAMES},
        hook=options.hook or take(config, "hook_point", str, "cfg"),
        model=options.model
        or take_or(config, "model_name", str, "cfg", "")
        or None,
        prepend_bos=True,
        context_size=take_or(config, "context_size", int, "cfg", 128),
        metadata={"model_from_pretrained_kwargs": _PROCESSED},
        notes=[
            "trained on the model as TransformerLens processes it by default: "
            "processing is folded"
        ],
    )
    if transcoder:
        _fold(dictionary, tensors_of(tensors, path.name, ["b_dec_out"]))
        dictionary.hook_out = options.hook_out or required(
            take_or(config, "out_hook_point", str, "cfg", ""),
            "where the output belongs",
            "--hook-out",
        )
    else:
        dictionary.settings["apply_b_dec_to_input"] = True
    _add_sparsity(path, dictionary)
    return dictionary


def _config(cfg: Any) -> Dict[str, Any]:
    if isinstance(cfg, Record):
        return cfg.attributes
    if isinstance(cfg, dict):
        return cfg
    raise ImportFailed("cfg is no configuration")


def _fold(dictionary: Dictionary, tensors: Dict[str, LazyTensor]) -> None:
    W_enc, b_enc, b_dec = (
        dictionary.tensors[n] for n in ("W_enc", "b_enc", "b_dec")
    )
    if (b_dec.shape[0:1], b_enc.shape[0:1]) != (
        W_enc.shape[0:1],
        W_enc.shape[1:2],
    ):
        raise ImportFailed("W_enc, b_enc and b_dec do not fit each other")

    def load() -> Any:
        # In float64 by blocks, so that no second W_enc is held.
        matrix, center = W_enc.load(), b_dec.load().astype(np.float64)
        shift = np.zeros(matrix.shape[1])
        for row in range(0, len(matrix), 64):
            shift += center[row : row + 64] @ matrix[row : row + 64]
        return np.ascontiguousarray(b_enc.load() - shift, "<f4")

    dictionary.tensors["b_enc"] = LazyTensor(b_enc.shape, load)
    dictionary.tensors["b_dec"] = tensors["b_dec_out"]
    dictionary.notes.append(
        "b_dec, which is subtracted from the input, was folded into b_enc; "
        "b_dec now is b_dec_out"
    )


def _add_sparsity(path: Path, dictionary: Dictionary) -> None:
    name = path.name.split(".pt")[0].split(".pkl")[0]
    beside = path.with_name(name + _SUFFIX + ".pt")
    if not beside.is_file():
        return
    tensor = read_torch(beside)
    if not isinstance(tensor, LazyTensor):
        raise ImportFailed(f"{beside.name} holds no tensor")
    dictionary.sparsity["sparsity"] = tensor
