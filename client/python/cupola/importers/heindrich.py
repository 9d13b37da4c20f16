"""Autoencoders of Heindrich et al.: NAME.pt, a bare state dict, and NAME.json.

    a = ReLU((x - b_dec) W_enc + b_enc);  x^ = a W_dec + b_dec

The JSON says `layer` and `act` (the hook point is blocks.LAYER.ACT), `d_in` and
`expansion_factor`; the model's name is that of the folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from ._failure import ImportFailed, short
from ._json import existing, number, read_json, take, unread
from ._layout import Dictionary, Options, only
from ._torch_file import read_torch, tensors_of

_SETTINGS = ("layer", "act", "d_in", "expansion_factor", "l1_coeff", "reg")
_NAMES = ["W_enc", "W_dec", "b_enc", "b_dec"]


def read(source: Path, options: Options) -> Dictionary:
    if source.name in ("", ".."):
        raise ImportFailed(f"{source} is no file: NAME.pt is asked for")
    path = existing(source.with_suffix(".pt"))
    file = source.with_suffix(".json")
    config = read_json(file)
    tensors = tensors_of(read_torch(path), path.name, _NAMES)
    d_in = take(config, "d_in", int, file.name)
    factor = number(config, "expansion_factor", file.name)
    if not (0 < factor < 1e9 and 0 < d_in < 1e9):
        raise ImportFailed(
            f"{file.name} says d_in is {short(d_in)} and expansion_factor "
            f"{short(factor)}"
        )
    d_sae = round(d_in * factor)
    only(tensors, path.name, *_NAMES)
    if tensors["W_enc"].shape != (d_in, d_sae):
        raise ImportFailed(
            f"W_enc has the shape {list(tensors['W_enc'].shape)}, where "
            f"{file.name} says {[d_in, d_sae]}"
        )
    layer = take(config, "layer", int, file.name)
    act = take(config, "act", str, file.name)
    note = unread(config, file.name, _SETTINGS)
    return Dictionary(
        architecture="standard",
        tensors={name: tensors[name] for name in _NAMES},
        hook=options.hook or f"blocks.{layer}.{act}",
        model=options.model or Path(os.path.abspath(path)).parent.name,
        settings={"apply_b_dec_to_input": True},
        notes=[note] if note else [],
    )
