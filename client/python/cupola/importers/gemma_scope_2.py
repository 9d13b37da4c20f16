"""Gemma Scope 2: config.json and params.safetensors of an SAE or of a
transcoder for Gemma 3.

w_enc [d_in, d_sae], w_dec [d_sae, d_out], b_enc, b_dec, threshold, perhaps
affine_skip_connection [d_in, d_out]; JumpReLU, strictly above the threshold;
nothing is subtracted from the input. config.json names places by their Hugging
Face modules. A transcoder reads what leaves the norm before the MLP, behind its
gain: mlp.hook_in (SAELens says hook_mlp_in, which is the residual stream before
that norm).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

from ._arrays import pick, read_safetensors
from ._failure import ImportFailed
from ._hooks import required
from ._json import existing, read_json, take_or, unread
from ._layout import Dictionary, Options, only, transposed

_FILE = "config.json"
_SETTINGS = (
    *("architecture", "model_name", "hf_hook_point_in", "hf_hook_point_out"),
    *("affine_connection", "width", "l0", "type"),
)
_PLACES = {
    "output": "hook_resid_post",
    "self_attn.o_proj.input": "attn.hook_z",
    "pre_feedforward_layernorm.output": "mlp.hook_in",
    "post_feedforward_layernorm.output": "hook_mlp_out",
}


def read(source: Path, options: Options) -> Dictionary:
    folder = source if source.is_dir() else source.parent
    path = existing(folder / "params.safetensors")
    config = read_json(folder / _FILE)
    kind = take_or(config, "architecture", str, _FILE, "jump_relu")
    if kind != "jump_relu":
        raise ImportFailed(f"{_FILE} says architecture is {kind!r}")
    file = read_safetensors(path)
    tensors = {
        "W_enc": pick(file, path.name, "w_enc"),
        "W_dec": pick(file, path.name, "w_dec"),
        "b_enc": pick(file, path.name, "b_enc"),
        "b_dec": pick(file, path.name, "b_dec"),
        "threshold": pick(file, path.name, "threshold"),
    }
    only(
        *(file, path.name, "w_enc", "w_dec", "b_enc", "b_dec", "threshold"),
        "affine_skip_connection",
    )
    if len(tensors["W_dec"].shape) != 2:
        raise ImportFailed(
            "transcoders that write to several layers cannot be represented"
        )
    reads = take_or(config, "hf_hook_point_in", str, _FILE, "")
    writes = take_or(config, "hf_hook_point_out", str, _FILE, "") or reads
    hook = required(
        options.hook or _hook(reads), "where its input is", "--hook"
    )
    hook_out: Optional[str] = None
    if options.hook_out:
        hook_out = options.hook_out if options.hook_out != hook else None
    elif writes != reads:  # whatever --hook calls its input
        hook_out = _hook(writes)
    architecture = "jumprelu"
    if hook_out:
        architecture = "jumprelu_transcoder"
        if "affine_skip_connection" in file:
            architecture = "jumprelu_skip_transcoder"
            tensors["W_skip"] = transposed(file["affine_skip_connection"])
    elif "affine_skip_connection" in file:
        raise ImportFailed("an SAE with a skip connection is not imported")
    note = unread(config, _FILE, _SETTINGS)
    return Dictionary(
        architecture=architecture,
        tensors=tensors,
        hook=hook,
        hook_out=hook_out,
        model=options.model
        or take_or(config, "model_name", str, _FILE, "").replace("-v3", "-3")
        or None,
        prepend_bos=True,
        context_size=1024,
        notes=[note] if note else [],
    )


def _hook(place: str) -> Optional[str]:
    if not place:
        return None
    found = re.fullmatch(r"model\.(?:\w+\.)?layers\.(\d+)\.([\w.]+)", place)
    if not found or found[2] not in _PLACES:
        raise ImportFailed(
            f"{_FILE} says {place!r}, which is no known place: give --hook "
            "(and, for a transcoder, --hook-out)"
        )
    return f"blocks.{found[1]}.{_PLACES[found[2]]}"
