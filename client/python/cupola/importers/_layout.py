"""The folder that every importer writes: SAELens' layout of version 6.

`cfg.json` says what the dictionary computes, `sae_weights.safetensors` holds
its tensors in float32 under SAELens' names and in its shapes, and
`sparsity.safetensors`, where the source knows it, how often its latents fire.
A server reads the folder, and so does SAELens (except for the architectures
that are a server's alone: a TopK transcoder, a Jacobian pair).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ._failure import ImportFailed, guarded, short
from ._safetensors import LazyTensor, write_json, write_safetensors

Progress = Callable[[int, int], None]
Tensors = Dict[str, LazyTensor]

CONFIG, WEIGHTS, SPARSITY = (
    "cfg.json",
    "sae_weights.safetensors",
    "sparsity.safetensors",
)
_LAYOUT_VERSION = "6.0.0"  # of SAELens, whose keys these are


@dataclasses.dataclass
class Options:
    """What a caller says of a dictionary beside its files."""

    model: Optional[str] = None
    hook: Optional[str] = None
    hook_out: Optional[str] = None
    prepend_bos: Optional[bool] = None
    norm_scaling_factor: Optional[float] = None


@dataclasses.dataclass
class Dictionary:
    """A dictionary in SAELens' terms, its tensors not yet loaded."""

    architecture: str
    tensors: Tensors
    hook: str
    hook_out: Optional[str] = None  # of a transcoder
    model: Optional[str] = None
    prepend_bos: Optional[bool] = None  # None: as the model usually has it
    context_size: Optional[int] = None
    settings: Dict[str, Any] = dataclasses.field(default_factory=dict)
    metadata: Dict[str, Any] = dataclasses.field(default_factory=dict)
    sparsity: Tensors = dataclasses.field(default_factory=dict)
    # cfg.json as it is, for layouts of their own.
    config: Optional[Dict[str, Any]] = None
    # What was changed on the way, and what was assumed: for people.
    notes: List[str] = dataclasses.field(default_factory=list)


def stored(shape: Tuple[int, ...], value: float) -> LazyTensor:
    return LazyTensor(shape, lambda: np.full(shape, value, "<f4"))


_ROWS = 256  # of a matrix that are in float64 at once


def scaled(tensor: LazyTensor, factor: float) -> LazyTensor:
    if factor == 1:
        return tensor
    return scaled_by(tensor, lambda: np.array(factor))


def scaled_by(
    tensor: LazyTensor, factors: Callable[[], NDArray[np.float64]]
) -> LazyTensor:
    """`tensor` times what `factors` gives when it is loaded: a number, one for
    each column, or, as [rows, 1], one for each row."""

    def load() -> NDArray[np.float32]:
        array, by = tensor.load(), factors()
        if array.ndim == 0:
            return np.asarray(array * by, "<f4")
        scaled = np.empty(array.shape, "<f4")
        for at in range(0, len(array), _ROWS):
            rows = slice(at, at + _ROWS)
            whole = by.ndim < array.ndim and array.ndim > 1 or by.ndim == 0
            scaled[rows] = array[rows] * (by if whole else by[rows])
        return scaled

    return LazyTensor(tensor.shape, load)


def row_norms(matrix: LazyTensor) -> Callable[[], NDArray[np.float64]]:
    """The lengths of its rows, computed once, when they are asked for."""

    @functools.lru_cache(maxsize=None)
    def norms() -> NDArray[np.float64]:
        array = matrix.load()
        return np.concatenate(
            [
                np.linalg.norm(array[at : at + _ROWS].astype("f8"), axis=1)
                for at in range(0, len(array), _ROWS)
            ]
        )

    return norms


def of_embedding_rows(tensors: Tensors) -> str:
    """Rewrites a dictionary of an embedding's rows for hook_embed, which holds
    them times sqrt(d) in Gemma 1 and 2; says so."""
    if len(tensors["W_dec"].shape) != 2:
        raise ImportFailed("the source gives no matrix W_dec")
    root = math.sqrt(tensors["W_dec"].shape[1])
    tensors["W_enc"] = scaled(tensors["W_enc"], 1 / root)
    for name in ("W_dec", "b_dec"):
        tensors[name] = scaled(tensors[name], root)
    return (
        "trained on the embedding's rows: W_enc / sqrt(d), and W_dec and "
        "b_dec * sqrt(d), for hook_embed"
    )


def only(tensors: Tensors, file: str, *names: str) -> None:
    """Refuses tensors beside those of the names: what is not known of may
    change what the dictionary computes."""
    others = sorted(set(tensors) - set(names))
    if others:
        raise ImportFailed(
            f"{file} has tensors that nothing is known of: "
            + ", ".join(short(name) for name in others[:20])
        )


def transposed(tensor: LazyTensor) -> LazyTensor:
    if len(tensor.shape) != 2:
        raise ImportFailed(f"a matrix has the shape {list(tensor.shape)}")
    rows, columns = tensor.shape
    return LazyTensor(
        (columns, rows), lambda: np.ascontiguousarray(tensor.load().T)
    )


def scalar(tensor: LazyTensor) -> float:
    if int(np.prod(tensor.shape)) != 1:
        raise ImportFailed(f"a number has the shape {list(tensor.shape)}")
    return float(tensor.load().reshape(()))


def check_shapes(dictionary: Dictionary) -> Tuple[int, int, int]:
    """d_in, d_sae and d_out, after a look at every tensor's shape."""
    tensors = dictionary.tensors
    for name in ("W_dec", "W_enc"):
        if name == "W_enc" and dictionary.architecture == "matching_pursuit":
            continue
        if name not in tensors or len(tensors[name].shape) != 2:
            raise ImportFailed(f"the source gives no matrix {name}")
    d_sae, d_out = tensors["W_dec"].shape
    d_in = tensors["W_enc"].shape[0] if "W_enc" in tensors else d_out
    expected = {
        "W_enc": (d_in, d_sae),
        "W_dec": (d_sae, d_out),
        "b_dec": (d_out,),
        "W_skip": (d_out, d_in),
    }
    for name, tensor in {**tensors, **dictionary.sparsity}.items():
        shape = expected.get(name, (d_sae,))
        if tensor.shape != shape:
            raise ImportFailed(
                f"tensor {name} has the shape {list(tensor.shape)}, where "
                f"W_enc and W_dec ask for {list(shape)}"
            )
    if min(d_in, d_sae, d_out) < 1:
        raise ImportFailed(f"W_dec has the shape {[d_sae, d_out]}")
    if "transcoder" not in dictionary.architecture and d_out != d_in:
        raise ImportFailed(
            f"the dictionary reads {d_in} values and writes {d_out}: it is a "
            "transcoder, which this format does not say"
        )
    k = dictionary.settings.get("k")
    if k is None and dictionary.architecture.startswith("topk"):
        raise ImportFailed("the source does not say k, which a topk needs")
    if k is not None and (type(k) is not int or not 1 <= k <= d_sae):
        raise ImportFailed(f"k is {short(k)}, of {d_sae} latents")
    return d_in, d_sae, d_out


def config_of(dictionary: Dictionary) -> Dict[str, Any]:
    """cfg.json, without what says where the folder came from."""
    d_in, d_sae, d_out = check_shapes(dictionary)
    transcoder = "transcoder" in dictionary.architecture
    config: Dict[str, Any] = {
        "architecture": dictionary.architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        **({"d_out": d_out} if transcoder else {}),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "hook_z"
        if dictionary.hook.endswith(".hook_z")
        else "none",
        **dictionary.settings,
    }
    metadata: Dict[str, Any] = {
        "model_name": dictionary.model,
        "hook_name": dictionary.hook,
        "hook_name_out": dictionary.hook_out,
        "prepend_bos": dictionary.prepend_bos,
        "context_size": dictionary.context_size,
        **dictionary.metadata,
        "sae_lens_version": _LAYOUT_VERSION,
    }
    config["metadata"] = {k: v for k, v in metadata.items() if v is not None}
    return config


def write(
    dictionary: Dictionary,
    folder: Path,
    origin: Dict[str, Any],
    progress: Optional[Progress] = None,
) -> None:
    """Writes the folder; cfg.json comes last, so that one that has it is
    complete. Refuses tensors with values that are not finite."""
    _check_names(dictionary)
    config = dictionary.config or config_of(dictionary)
    config.setdefault("metadata", {})["imported_from"] = {
        **origin,
        "notes": dictionary.notes,
    }
    tensors = {n: _finite(n, t) for n, t in dictionary.tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    # An older dictionary stays until all of the new one is there.
    staged = {n: folder / (n + ".new") for n in (SPARSITY, WEIGHTS, CONFIG)}
    try:
        if dictionary.sparsity:
            write_safetensors(
                staged[SPARSITY],
                {n: _finite(n, t) for n, t in dictionary.sparsity.items()},
            )
        write_safetensors(staged[WEIGHTS], tensors, progress)
        write_json(staged[CONFIG], config)
        for name in (CONFIG, SPARSITY):
            (folder / name).unlink(missing_ok=True)
        for name, path in staged.items():
            if path.exists():
                path.replace(folder / name)
    finally:
        for path in staged.values():
            path.unlink(missing_ok=True)


def _check_names(dictionary: Dictionary) -> None:
    """They come from files, are shown to people and name places in a model."""
    for hook in (dictionary.hook, dictionary.hook_out):
        if hook is not None and not re.fullmatch(r"[A-Za-z0-9_.]+", hook):
            raise ImportFailed(f"{short(hook)} is no hook point; give --hook")
    if dictionary.model and not dictionary.model.isprintable():
        raise ImportFailed(f"{short(dictionary.model)} is no model's name")


def _finite(name: str, tensor: LazyTensor) -> LazyTensor:
    def load() -> NDArray[np.float32]:
        with guarded():
            array = tensor.load()
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise ImportFailed(
                f"tensor {name} holds {bad} of {array.size} values that are "
                "not finite"
            )
        return array

    return LazyTensor(tensor.shape, load)
