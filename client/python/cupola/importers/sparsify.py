"""sparsify (EleutherAI): a folder named after a module, with cfg.json and
sae.safetensors.

encoder.weight [d_sae, d_in], encoder.bias, W_dec [d_sae, d_out], b_dec, W_skip
[d_out, d_in]. An SAE subtracts b_dec from its input, a transcoder does not; the
k largest of ReLU(...) are kept; with W_skip x W_skip^T of the input itself is
added. (SAELens' loader of these files is another thing: it transposes W_dec and
knows neither transcoders nor W_skip.)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict

from ._arrays import pick, read_safetensors
from ._failure import ImportFailed, short
from ._hooks import module_hooks, required, rows_are_scaled
from ._json import existing, read_json, take, take_or
from ._layout import (
    Dictionary,
    Options,
    Tensors,
    of_embedding_rows,
    only,
    stored,
    transposed,
)
from ._safetensors import LazyTensor

_FILE = "cfg.json"
# The last ones are of training alone.
_SETTINGS = (
    *("activation", "signed", "transcode", "skip_connection", "k", "d_in"),
    *("num_latents", "expansion_factor", "normalize_decoder", "multi_topk"),
)


def read(source: Path, options: Options) -> Dictionary:
    config = read_json(source / _FILE)
    path = existing(source / "sae.safetensors")
    file = read_safetensors(path)
    activation = take_or(config, "activation", str, _FILE, "topk")
    if activation != "topk":
        raise ImportFailed(
            f"{_FILE} says activation is {activation!r}: one winner per group "
            "cannot be represented"
        )
    if take_or(config, "signed", bool, _FILE, False):
        raise ImportFailed("signed activations cannot be represented")
    # embed_skip and gram_lookup, say, change what is computed.
    others = [n for n, v in config.items() if v and n not in _SETTINGS]
    if others:
        raise ImportFailed(
            f"{_FILE} has settings that nothing is known of: "
            + ", ".join(short(name) for name in sorted(others)[:20])
        )
    transcode = take_or(config, "transcode", bool, _FILE, False)
    notes = []
    W_enc = transposed(pick(file, path.name, "encoder.weight"))
    W_dec = pick(file, path.name, "W_dec", "decoder.weight")
    only(
        *(file, path.name, "encoder.weight", "encoder.bias", "W_dec"),
        *("decoder.weight", "b_dec", "decoder.bias", "W_skip"),
    )
    if len(W_dec.shape) != 2:
        raise ImportFailed(f"W_dec has the shape {list(W_dec.shape)}")
    d_sae = W_enc.shape[1]
    # Today's files and the oldest hold it as [d_sae, d_out].
    if W_dec.shape[0] != d_sae and W_dec.shape[1:] == (d_sae,):
        W_dec = transposed(W_dec)
        notes.append("W_dec was stored transposed")
    tensors: Tensors = {
        "W_enc": W_enc,
        "b_enc": file.get("encoder.bias") or stored((d_sae,), 0),
        "W_dec": W_dec,
        "b_dec": _bias(file, W_dec.shape[1]),
    }
    _check_size(config, W_enc.shape)
    skip = "W_skip" in file
    if skip != take_or(config, "skip_connection", bool, _FILE, skip):
        raise ImportFailed(
            f"{_FILE} and {path.name} disagree on whether there is W_skip"
        )
    if skip:
        if not transcode:
            raise ImportFailed("an SAE with W_skip cannot be represented")
        tensors["W_skip"] = file["W_skip"]
    architecture = "topk"
    if transcode:
        architecture = "topk_skip_transcoder" if skip else "topk_transcoder"
    hook, hook_out = _hooks(source, config, transcode, options)
    model = _model(source, options)
    if hook == "hook_embed" and not options.hook:
        if transcode:
            raise ImportFailed("a transcoder of the embedding reads no vectors")
        if rows_are_scaled(model):
            notes.append(of_embedding_rows(tensors))
        elif model is None:
            notes.append("nothing names the model: hook_embed was taken as is")
    return Dictionary(
        architecture=architecture,
        tensors=tensors,
        hook=hook,
        hook_out=hook_out if transcode else None,
        model=model,
        settings={
            "k": take(config, "k", int, _FILE),
            "rescale_acts_by_decoder_norm": False,
            "apply_b_dec_to_input": not transcode,
        },
        notes=notes,
    )


def _bias(file: Tensors, width: int) -> LazyTensor:
    return file.get("b_dec") or file.get("decoder.bias") or stored((width,), 0)


def _check_size(config: Dict[str, Any], shape: Any) -> None:
    d_in = take(config, "d_in", int, _FILE)
    d_sae = take_or(config, "num_latents", int, _FILE, 0)
    d_sae = d_sae or d_in * take_or(config, "expansion_factor", int, _FILE, 32)
    if tuple(shape) != (d_in, d_sae):
        raise ImportFailed(
            f"the encoder maps {shape[0]} values to {shape[1]}, where {_FILE} "
            f"says {d_in} to {d_sae}"
        )


def _model(source: Path, options: Options) -> Any:
    beside = Path(os.path.abspath(source)).parent / "config.json"
    if options.model or not beside.is_file():
        return options.model
    return take_or(read_json(beside), "model", str, beside.name, "") or None


def _hooks(
    source: Path, config: Dict[str, Any], transcode: bool, options: Options
) -> Any:
    if options.hook:
        if transcode:
            required(options.hook_out, "where the output belongs", "--hook-out")
        return options.hook, options.hook_out
    # Runs with several seeds have a folder for each below the module's.
    folder = Path(os.path.abspath(source))
    name = folder.parent.name if folder.name.startswith("seed") else folder.name
    reads, writes = module_hooks(name, _model(source, options))
    if transcode:
        return reads, options.hook_out or writes
    return writes, None
