"""Writes a safetensors file one tensor at a time, and JSON beside it.

The safetensors package writes only what is in memory at once; an imported
model is dequantized on the way, so that no more than one of its tensors is.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from numpy.typing import NDArray


class LazyTensor(NamedTuple):
    shape: Tuple[int, ...]
    load: Callable[[], NDArray[np.float32]]  # C order, of that shape


def write_safetensors(
    path: Path,
    tensors: Mapping[str, LazyTensor],
    progress: Optional[Callable[[int, int], None]] = None,
) -> None:
    """Writes float32 `tensors`; `path` is replaced when all are written."""
    header: Dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + 4 * int(np.prod(tensor.shape))
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for done, tensor in enumerate(tensors.values(), 1):
                array = tensor.load()
                if array.shape != tensor.shape or array.dtype != "<f4":
                    raise ValueError(f"expected float32 {tensor.shape}")
                out.write(array.data)
                if progress:
                    progress(done, len(tensors))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Dict[str, Any]) -> None:
    """`path` is replaced when all is written."""
    partial = path.with_name(path.name + ".partial")
    text = json.dumps(value, ensure_ascii=False, indent=2)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
