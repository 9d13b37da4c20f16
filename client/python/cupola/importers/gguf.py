"""Turns a GGUF file of a Llama model into a Hugging Face folder.

The folder holds config.json, model.safetensors (dequantized to float32),
tokenizer.json and tokenizer_config.json, and is what a Cupola server and
transformers both load. Needs the extra ``cupola[import]`` (the ``gguf``
package). Anything that the folder could not say exactly (another
architecture, experts, scaled rotary frequencies) is refused with the reason.

GGUF metadata keys and tensor names are those of the GGUF specification
(ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from ._failure import ImportFailed
from ._safetensors import LazyTensor, write_json, write_safetensors
from ._tokenizer import tokenizer_files

__all__ = ["ImportFailed", "import_gguf", "unpermute"]

_GLOBAL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


def import_gguf(
    source: Union[str, Path],
    folder: Union[str, Path],
    progress: Optional[Callable[[int, int], None]] = None,
) -> Path:
    """Writes the model of `source` into `folder` and returns the folder.

    `progress(done, total)` is called after each tensor. config.json is written
    last and files are replaced whole, so a folder that has a config.json is
    complete. Raises ImportFailed when the file is not a GGUF that can be
    imported.
    """
    fields, tensors = _read(Path(source))
    config = _config(fields, tensors)
    weights = dict(_weights(tensors, config))
    for name in _expected(config):
        if name not in weights:
            raise ImportFailed(f"the file has no tensor for {name}")
    try:
        tokenizer, tokenizer_config = tokenizer_files(fields)
    except ValueError as error:
        raise ImportFailed(str(error)) from None

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    try:
        write_safetensors(folder / "model.safetensors", weights, progress)
    except NotImplementedError as error:
        raise ImportFailed(f"a tensor cannot be dequantized: {error}") from None
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    write_json(folder / "config.json", config)
    return folder


def _read(source: Path) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """The metadata and the (memory-mapped) tensors, by name."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ImportFailed(
            "reading GGUF needs the gguf package: pip install 'cupola[import]'"
        ) from None
    if not source.is_file():
        raise ImportFailed(f"no such file: {source}")
    try:
        reader = GGUFReader(source)
        fields = {name: f.contents() for name, f in reader.fields.items()}
    except Exception as error:  # the reader checks little and raises anything
        raise ImportFailed(
            f"{source} is not a readable GGUF: {error}"
        ) from None
    return fields, {tensor.name: tensor for tensor in reader.tensors}


def _config(fields: Dict[str, Any], tensors: Dict[str, Any]) -> Dict[str, Any]:
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise ImportFailed(
            f"the file's architecture is {architecture!r}; only 'llama' "
            "(Llama 2 and 3, SmolLM2, Mistral 7B and the like) can be imported"
        )

    def get(key: str, default: Any = None) -> Any:
        value = fields.get("llama." + key, default)
        if value is None:
            raise ImportFailed(f"the file does not say llama.{key}")
        return value

    if fields.get("llama.expert_count", 0):
        raise ImportFailed("mixtures of experts cannot be imported")
    scaling = fields.get("llama.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in tensors:
        raise ImportFailed(
            "the model scales its rotary frequencies (long-context Llama 3.1 "
            "and later do), which a GGUF does not state exactly"
        )
    heads, width = (
        int(get("attention.head_count")),
        int(get("embedding_length")),
    )
    head_dim = int(get("attention.key_length", width // heads))
    if int(get("attention.value_length", head_dim)) != head_dim:
        raise ImportFailed("keys and values of different widths")
    if int(get("rope.dimension_count", head_dim)) != head_dim:
        raise ImportFailed("rotary embedding of a part of each head")
    # Stored as float32: the shortest decimal that means the same float32.
    epsilon = float(str(np.float32(get("attention.layer_norm_rms_epsilon"))))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": int(get("feed_forward_length")),
        "max_position_embeddings": int(get("context_length")),
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": int(get("block_count")),
        "num_key_value_heads": int(get("attention.head_count_kv", heads)),
        "rms_norm_eps": epsilon,
        "rope_scaling": None,
        "rope_theta": float(get("rope.freq_base", 10000.0)),
        "tie_word_embeddings": "output.weight" not in tensors,
        "torch_dtype": "float32",
        "vocab_size": len(fields.get("tokenizer.ggml.tokens", [])),
    }
    return {key: value for key, value in config.items() if value is not None}


def _expected(config: Dict[str, Any]) -> Iterator[str]:
    yield "model.embed_tokens.weight"
    yield "model.norm.weight"
    for layer in range(config["num_hidden_layers"]):
        for name in _LAYER.values():
            yield f"model.layers.{layer}.{name}"


def _weights(
    tensors: Dict[str, Any], config: Dict[str, Any]
) -> Iterator[Tuple[str, LazyTensor]]:
    for name, tensor in tensors.items():
        layer = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
        if layer and layer[2] in _LAYER:
            target = f"model.layers.{layer[1]}.{_LAYER[layer[2]]}"
        elif name in _GLOBAL:
            target = _GLOBAL[name]
        else:
            raise ImportFailed(f"tensor {name} has no place in a Llama model")
        heads = 0
        if name.endswith("attn_q.weight"):
            heads = config["num_attention_heads"]
        elif name.endswith("attn_k.weight"):
            heads = config["num_key_value_heads"]
        # GGUF lists dimensions from the fastest-varying one.
        shape = tuple(int(size) for size in reversed(tensor.shape))
        yield target, LazyTensor(shape, _loader(tensor, shape, heads))


def _loader(
    tensor: Any, shape: Tuple[int, ...], heads: int
) -> Callable[[], NDArray[Any]]:
    def load() -> NDArray[Any]:
        from gguf.quants import dequantize

        array: NDArray[Any] = dequantize(
            tensor.data, tensor.tensor_type
        ).reshape(shape)
        if heads:
            array = unpermute(array, heads)
        return np.ascontiguousarray(array, "<f4")

    return load


def unpermute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Undoes llama.cpp's order of query and key rows.

    llama.cpp rotates neighbouring rows (2i, 2i + 1) of a head, Hugging Face
    rows (i, i + d_head / 2); GGUF files of the llama architecture hold the
    former.
    """
    out, width = rows.shape
    pairs = rows.reshape(heads, out // heads // 2, 2, width)
    halves: NDArray[Any] = pairs.swapaxes(1, 2).reshape(out, width)
    return halves
