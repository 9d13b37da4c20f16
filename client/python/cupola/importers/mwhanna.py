"""Transcoders per layer, as circuit-tracer reads them: layer_N.safetensors.

W_enc [d_sae, d_in], b_enc, W_dec [d_sae, d_out], b_dec; a TopK where
config.yaml's activation or a tensor k says so, a JumpReLU (strictly above) with
activation_function.threshold, else a ReLU; with W_skip [d_out, d_in]
y = a W_dec + b_dec + x W_skip^T. Nothing is subtracted from the input.
config.yaml beside it names the model and the hook points; for
Qwen 3 these are the MLP's input behind the norm's gain and its output.

circuit-tracer rectifies neither JumpReLU nor TopK: a negative threshold is
refused, and of the k largest a server leaves out those that are not positive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from ._arrays import pick, read_safetensors
from ._failure import ImportFailed, short
from ._hooks import in_block, layer_in
from ._json import existing, read_flat_yaml, unread
from ._layout import (
    Dictionary,
    Options,
    Tensors,
    only,
    scalar,
    transposed,
)
from ._safetensors import LazyTensor

_THRESHOLD = "activation_function.threshold"
_BIASED = ("W_enc", "b_enc", "W_dec", "b_dec")
_SETTINGS = (
    *("model_name", "model_kind", "feature_input_hook", "feature_output_hook"),
    *("activation", "k", "scan", "transcoders", "repo_id", "revision"),
)


def read(source: Path, options: Options) -> Dictionary:
    path = existing(source)
    tensors = read_safetensors(path)
    config = _config(path)
    kind = config.get("model_kind", "transcoder_set")
    if kind != "transcoder_set" or any(n.startswith("W_enc_") for n in tensors):
        raise ImportFailed(
            "transcoders that write to several layers cannot be represented"
        )
    if "log_thresholds" in tensors:
        raise ImportFailed("log_thresholds are of a use that is not known")
    layer = layer_in(path.stem)
    if layer is None and not (options.hook and options.hook_out):
        raise ImportFailed(
            f"{path.name} does not say which layer; give --hook and --hook-out"
        )
    layer = layer or 0
    only(tensors, path.name, *_BIASED, "W_skip", _THRESHOLD, "k")
    activation, k = _activation(config, tensors)
    note = unread(config, "config.yaml", _SETTINGS)
    notes = [note] if note else []
    architecture = "transcoder"
    named = {
        "W_enc": transposed(pick(tensors, path.name, "W_enc")),
        "b_enc": pick(tensors, path.name, "b_enc"),
        "W_dec": pick(tensors, path.name, "W_dec"),
        "b_dec": pick(tensors, path.name, "b_dec"),
    }
    if "W_skip" in tensors:
        architecture = "skip_" + architecture
        named["W_skip"] = tensors["W_skip"]
    if activation == "jumprelu":
        architecture = "jumprelu_" + architecture
        named["threshold"] = _not_negative(tensors[_THRESHOLD])
    elif activation == "topk":
        architecture = "topk_" + architecture
        notes.append(
            "of the k largest circuit-tracer keeps negative ones, too, which a "
            "server leaves out"
        )
    elif _THRESHOLD in tensors:
        notes.append(f"activation is relu: {_THRESHOLD} is not used")
    if "feature_input_hook" not in config and not options.hook:
        notes.append(
            "config.yaml names no hook points: those of an MLP were taken"
        )
    model = options.model or config.get("model_name")
    return Dictionary(
        architecture=architecture,
        tensors=named,
        hook=options.hook
        or in_block(
            layer, config.get("feature_input_hook", "mlp.hook_in"), model
        ),
        hook_out=options.hook_out
        or in_block(
            layer, config.get("feature_output_hook", "hook_mlp_out"), model
        ),
        model=model,
        settings={"k": k, "rescale_acts_by_decoder_norm": False} if k else {},
        notes=notes,
    )


def _activation(
    config: Dict[str, str], tensors: Tensors
) -> Tuple[str, Optional[int]]:
    """Its kind, and the k of a TopK."""
    k = _k(config, tensors)
    implied = [
        name
        for name, there in (
            ("jumprelu", _THRESHOLD in tensors),
            ("topk", k is not None),
        )
        if there
    ]
    kind = config.get("activation", "").lower().replace("_", "")
    if not kind:
        if len(implied) > 1:
            raise ImportFailed("there are both a threshold and k")
        kind = implied[0] if implied else "relu"
    if kind not in ("relu", "jumprelu", "topk"):
        raise ImportFailed(
            f"config.yaml says activation is {short(config['activation'])}: "
            "relu, jumprelu and topk are imported"
        )
    if kind != "relu" and kind not in implied:
        what = "k" if kind == "topk" else "a threshold"
        raise ImportFailed(f"activation is {kind}, and nothing says {what}")
    if kind != "topk" and k is not None:
        raise ImportFailed(f"activation is {kind}, and there is k")
    if kind == "topk" and _THRESHOLD in tensors:
        raise ImportFailed("activation is topk, and there is a threshold")
    return kind, k


def _k(config: Dict[str, str], tensors: Tensors) -> Optional[int]:
    said: Optional[int] = None
    text = config.get("k", "null")
    if text not in ("null", "~"):
        if not text.isdecimal() or len(text) > 9 or int(text) < 1:
            raise ImportFailed(f"config.yaml says k is {short(text)}")
        said = int(text)
    if "k" not in tensors:
        return said
    value = scalar(tensors["k"])
    if not 1 <= value < 1e9 or value != int(value):
        raise ImportFailed(f"k is {value}")
    if said is not None and said != value:
        raise ImportFailed(f"k is {said} in config.yaml and {value:.0f} beside")
    return int(value)


def _not_negative(threshold: LazyTensor) -> LazyTensor:
    def load() -> NDArray[np.float32]:
        array = threshold.load()
        if (array < 0).any():
            raise ImportFailed(
                f"{_THRESHOLD} has negative values, with which circuit-tracer "
                "gives negative activations: that cannot be represented"
            )
        return array

    return LazyTensor(threshold.shape, load)


def _config(path: Path) -> Dict[str, str]:
    file = path.with_name("config.yaml")
    return read_flat_yaml(file) if file.is_file() else {}
