"""A dictionary of the server's as a folder that SAELens reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InvalidArgument
from .importers import _layout
from .importers._safetensors import LazyTensor

if TYPE_CHECKING:
    from .dictionary import Dictionary

_BLOCK_BYTES = 64 << 20  # of a matrix that are fetched at once

# Tensors with one entry, or row, of each latent, beside the two matrices.
_OF_LATENTS = {
    "standard": ["b_enc"],
    "topk": ["b_enc"],
    "jumprelu": ["b_enc", "threshold"],
    "gated": ["b_gate", "b_mag", "r_mag"],
}
# What SAELens calls the centring that a folded model's hook points have.
_FOLDED = {
    "fold_ln": True,
    "center_writing_weights": True,
    "fold_value_biases": True,
}


def save(
    dictionary: Dictionary,
    folder: str | os.PathLike[str],
    latents: Optional[ArrayLike],
) -> Path:
    """See Dictionary.save_saelens."""
    info = dictionary._loaded_info()
    base = info.architecture.replace("skip_transcoder", "transcoder")
    base = base.replace("_transcoder", "").replace("transcoder", "standard")
    if info.kind == "pair" or base not in _OF_LATENTS:
        raise InvalidArgument(
            f"{info.name} is a {info.kind} of architecture "
            f"{info.architecture!r}; accepted: SAEs and transcoders of "
            + ", ".join(_OF_LATENTS)
        )
    order = _order(latents, info.d_sae)
    tensors: Dict[str, LazyTensor] = {
        "W_enc": _matrix(dictionary, "W_enc", order, info.d_in),
        "W_dec": _matrix(dictionary, "W_dec", order, info.d_out),
        "b_dec": _whole(dictionary, "b_dec", (info.d_out,)),
    }
    for name in _OF_LATENTS[base]:
        tensors[name] = LazyTensor(
            order.shape,
            lambda name=name: np.ascontiguousarray(
                dictionary.weight(name)[order], "<f4"
            ),
        )
    if "skip" in info.architecture:
        tensors["W_skip"] = _whole(
            dictionary, "W_skip", (info.d_out, info.d_in)
        )
    # Norms and scalings have been folded into the numbers.
    run_time = info.normalize_activations
    if run_time == "expected_average_only_in":
        run_time = "none"
    settings = {
        "apply_b_dec_to_input": info.apply_b_dec_to_input,
        "normalize_activations": run_time,
    }
    if base == "topk":
        settings["k"] = info.k
        settings["rescale_acts_by_decoder_norm"] = False
    notes = []
    if info.tap == "post_affine":
        notes.append("reads what comes behind the norm's gain: tap POST_AFFINE")
    permuted = latents is not None
    _layout.write(
        _layout.Dictionary(
            architecture=info.architecture,
            tensors=tensors,
            hook=info.hook_in,
            hook_out=info.hook_out if info.kind == "transcoder" else None,
            model=info.model,
            prepend_bos=info.prepend_bos,
            context_size=info.context_size or None,
            settings=settings,
            metadata={"model_from_pretrained_kwargs": _FOLDED}
            if info.processing == "folded"
            else {},
            notes=notes,
        ),
        Path(folder),
        {
            "dictionary": info.name,
            "digest": info.digest,
            **({"latents": order.tolist()} if permuted else {}),
        },
    )
    return Path(folder)


def _order(latents: Optional[ArrayLike], d_sae: int) -> NDArray[np.int64]:
    if latents is None:
        return np.arange(d_sae)
    order = np.asarray(latents)
    if order.ndim != 1 or order.dtype.kind not in "iu" or not len(order):
        raise InvalidArgument(
            f"latents: {order.dtype} of shape {list(order.shape)}; accepted: "
            f"a list of latents, 0 to {d_sae - 1}"
        )
    outside = order[(order < 0) | (order >= d_sae)]
    if len(outside):
        raise InvalidArgument(
            f"latents: {outside[0]}; accepted: 0 to {d_sae - 1}"
        )
    return order.astype(np.int64)


def _matrix(
    dictionary: Dictionary, name: str, order: NDArray[np.int64], width: int
) -> LazyTensor:
    """W_dec with rows, or W_enc with columns, in the order."""
    rows = name == "W_dec"
    step = max(_BLOCK_BYTES // (4 * width), 1)

    def load() -> NDArray[np.float32]:
        blocks: List[NDArray[np.float32]] = []
        for at in range(0, len(order), step):
            some = order[at : at + step].tolist()
            blocks.append(
                dictionary.weight(name, rows=some)
                if rows
                else dictionary.weight(name, columns=some)
            )
        joined = np.concatenate(blocks, axis=0 if rows else 1)
        return np.ascontiguousarray(joined, "<f4")

    shape = (len(order), width) if rows else (width, len(order))
    return LazyTensor(shape, load)


def _whole(
    dictionary: Dictionary, name: str, shape: tuple[int, ...]
) -> LazyTensor:
    return LazyTensor(
        shape,
        lambda: np.ascontiguousarray(dictionary.weight(name), "<f4"),
    )
