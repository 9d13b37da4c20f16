"""Tensors in safetensors and npz files, loaded one at a time as float32.

Sizes are checked against the file before anything is allocated.
"""

from __future__ import annotations

import json
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict, Iterable, List, Tuple

import numpy as np
from numpy.typing import NDArray

from ._failure import ImportFailed, short
from ._safetensors import LazyTensor

# NumPy has no bfloat16: the upper halves of float32 values.
BFLOAT16 = "bfloat16"

# What reading a damaged archive may end with.
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, KeyError, OverflowError, RuntimeError, ValueError),
    # Of the text of an array's header, and of damaged archives' features.
    *(TypeError, SyntaxError, tokenize.TokenError, NotImplementedError),
)

_MAX_HEADER = 100 << 20
# Weights hardly compress; what inflates more than this is no set of weights.
_MAX_RATIO, _FREE = 100, 64 << 20

_SAFETENSORS_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": BFLOAT16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def to_float32(array: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """In C order. `array` of kind BFLOAT16 holds uint16."""
    if kind == BFLOAT16:
        wide: NDArray[np.float32] = np.left_shift(
            array, 16, dtype=np.uint32
        ).view(np.float32)
        return np.asarray(wide, order="C")
    with np.errstate(over="ignore"):  # what overflows is refused as infinite
        return np.asarray(array, "<f4", order="C")


def pick(tensors: Dict[str, LazyTensor], file: str, *names: str) -> LazyTensor:
    """The tensor by the first of `names` that is there."""
    for name in names:
        if name in tensors:
            return tensors[name]
    raise ImportFailed(
        f"{file} has no tensor {' or '.join(names)}; it has " + listed(tensors)
    )


def listed(names: Iterable[str]) -> str:
    return ", ".join(short(name) for name in sorted(names)[:20]) or "none"


def read_safetensors(path: Path) -> Dict[str, LazyTensor]:
    """Every tensor; loading one of a type without numbers is refused."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_MAX_HEADER, size - 8):
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        entries = [
            (str(name), entry)
            for name, entry in header.items()
            if name != "__metadata__"
        ]
        return {
            name: _extent(path, size, 8 + length, entry)
            for name, entry in entries
        }
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as e:
        raise ImportFailed(f"{path.name} is no safetensors file: {e}") from None
    except RecursionError:
        raise ImportFailed(f"{path.name} is no safetensors file") from None


def _extent(
    path: Path, size: int, base: int, entry: Dict[str, Any]
) -> LazyTensor:
    kind = _SAFETENSORS_TYPES.get(entry["dtype"])
    if kind is None:
        raise ValueError(f"values of type {entry['dtype']}")
    stored = np.dtype("<u2" if kind == BFLOAT16 else kind)
    shape = tuple(_sizes(entry["shape"]))
    start, end = _sizes(entry["data_offsets"])
    count = math.prod(shape)
    if end - start != count * stored.itemsize or base + end > size:
        raise ValueError("a tensor's extent does not fit its shape or the file")

    def load() -> NDArray[np.float32]:
        with open(path, "rb") as file:
            file.seek(base + start)
            array = np.fromfile(file, stored, count)
        if array.size != count:
            raise ImportFailed(f"{path.name} has become shorter")
        return to_float32(array.reshape(shape), kind)

    return LazyTensor(shape, load)


def _sizes(values: Iterable[Any]) -> List[int]:
    sizes = list(values)
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in sizes):
        raise ValueError("sizes that are none")
    return sizes


def read_npz(path: Path) -> Dict[str, LazyTensor]:
    """Every array, by its name without .npy. No pickled objects."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename[: -len(".npy")]: _member(path, archive, info)
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
    except ZIP_ERRORS as error:
        raise ImportFailed(f"{path.name} is no npz file: {error}") from None


def _member(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> LazyTensor:
    if info.file_size > _FREE + _MAX_RATIO * info.compress_size:
        raise ValueError(f"{info.filename} inflates to {info.file_size} bytes")
    # NumPy writes no other methods, whose errors are others, too.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} is compressed in an unknown way")
    with archive.open(info) as file:
        shape, dtype, length = _npy_header(file)
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in shape):
        raise ValueError(f"{info.filename} is of a damaged shape")
    if dtype.hasobject or dtype.kind not in "fiub":
        raise ValueError(f"{info.filename} holds values of type {dtype}")
    if info.file_size != length + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{info.filename} has not the size of its shape")

    def load() -> NDArray[np.float32]:
        try:
            with zipfile.ZipFile(path) as again, again.open(info) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except ZIP_ERRORS as error:
            raise ImportFailed(f"{path.name} is damaged: {error}") from None
        return to_float32(array, "f")

    return LazyTensor(shape, load)


def _npy_header(file: Any) -> Tuple[Tuple[int, ...], np.dtype[Any], int]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        header = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        header = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of npy")
    return header[0], header[2], int(file.tell())
