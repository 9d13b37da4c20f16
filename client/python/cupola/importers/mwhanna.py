"""Transcoders per layer, as circuit-tracer reads them: layer_N.safetensors.

W_enc [d_sae, d_in], b_enc, W_dec [d_sae, d_out], b_dec; with
activation_function.threshold a JumpReLU (strictly above), else a ReLU; with
W_skip [d_out, d_in] y = a W_dec + b_dec + x W_skip^T. Nothing is subtracted
from the input. config.yaml beside it names the model and the hook points; for
Qwen 3 these are the MLP's input behind the norm's gain and its output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict

from ._arrays import pick, read_safetensors
from ._failure import ImportFailed
from ._hooks import in_block, layer_in
from ._json import existing, read_flat_yaml
from ._layout import Dictionary, Options, transposed

_THRESHOLD = "activation_function.threshold"


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
    if _THRESHOLD in tensors:
        architecture = "jumprelu_" + architecture
        named["threshold"] = tensors[_THRESHOLD]
    given = "feature_input_hook" in config
    return Dictionary(
        architecture=architecture,
        tensors=named,
        hook=options.hook
        or in_block(layer, config.get("feature_input_hook", "mlp.hook_in")),
        hook_out=options.hook_out
        or in_block(layer, config.get("feature_output_hook", "hook_mlp_out")),
        model=options.model or config.get("model_name"),
        notes=[]
        if given or options.hook
        else ["config.yaml names no hook points: those of an MLP were taken"],
    )


def _config(path: Path) -> Dict[str, str]:
    file = path.with_name("config.yaml")
    return read_flat_yaml(file) if file.is_file() else {}
