"""Gemma Scope: params.npz of an SAE or of a transcoder for Gemma 2.

w_enc [d_in, d_sae], w_dec, b_enc, b_dec, threshold; JumpReLU, strictly above
the threshold; nothing is subtracted from the input. Where it belongs is known
from its path alone: gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71.

The SAEs of the embedding were trained on the embedding's rows, hook_embed holds
them times sqrt(d): W_enc / sqrt(d), and W_dec and b_dec * sqrt(d) (SAELens
leaves b_dec as it is).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Optional, Tuple

from ._arrays import pick, read_npz
from ._failure import ImportFailed
from ._hooks import layer_in, required
from ._json import existing
from ._layout import Dictionary, Options, of_embedding_rows, only

_REPOSITORY = r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)"
# As the component that stands where a layer's does.
_EMBEDDING = _REPOSITORY + r"/(?:.*/)?embedding/width_"
_SITES = {
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
    "transcoders": "ln2.hook_normalized",
}
# The names of transcoders' arrays differ between releases.
_NAMES = {
    "W_enc": ("w_enc", "wenc", "w_e"),
    "W_dec": ("w_dec", "wdec", "w_d"),
    "b_enc": ("b_enc", "benc", "b_e"),
    "b_dec": ("b_dec", "bdec", "b_d"),
    "threshold": ("threshold",),
}


def read(source: Path, options: Options) -> Dictionary:
    path = existing(source / "params.npz" if source.is_dir() else source)
    arrays = {name.lower(): a for name, a in read_npz(path).items()}
    tensors = {n: pick(arrays, path.name, *all_) for n, all_ in _NAMES.items()}
    only(arrays, path.name, *(n for all_ in _NAMES.values() for n in all_))
    # Not resolved: a cache of the hub's has links to files without a place.
    where = Path(os.path.abspath(path)).as_posix()
    model, site, layer = _place(where)
    rows = re.search(_EMBEDDING, where) is not None
    hook, hook_out = options.hook, options.hook_out
    embedding = hook == "hook_embed" if hook else rows
    if site == "transcoders" and not hook_out:
        known = f"blocks.{layer}.hook_mlp_out" if layer is not None else None
        hook_out = required(known, "where the output belongs", "--hook-out")
    if hook is None:
        if embedding:
            hook = "hook_embed"
        elif site is None or layer is None:
            raise ImportFailed(
                f"{source} does not say where it belongs, as in "
                "gemma-scope-2b-pt-res/layer_20/...; give --hook"
            )
        else:
            hook = f"blocks.{layer}.{_SITES[site]}"
    notes = []
    if embedding:
        notes.append(of_embedding_rows(tensors))
    elif rows:
        notes.append(
            "trained on the embedding's rows, which are not scaled as at "
            f"hook_embed: {hook} was asked for"
        )
    return Dictionary(
        architecture="jumprelu_transcoder" if hook_out else "jumprelu",
        tensors=tensors,
        hook=hook,
        hook_out=hook_out,
        model=options.model or model,
        prepend_bos=True,
        context_size=1024,
        notes=notes,
    )


def _place(where: str) -> Tuple[Optional[str], Optional[str], Optional[int]]:
    """The model, the site and the layer, of which each may be unknown."""
    layer = layer_in(where, r"layer_(\d+)")
    found = re.search(_REPOSITORY, where)
    if not found:
        return None, None, layer
    size, kind, site = found.groups()
    return f"gemma-2-{size}" + ("-it" if kind == "it" else ""), site, layer
