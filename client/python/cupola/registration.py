"""Entries that come and go while a server runs."""

from __future__ import annotations

import hashlib
import json
import pathlib
import struct
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
    Union,
)

import numpy as np

from . import _protos, _requests
from ._connection import Connection
from .errors import InvalidArgument

# A folder with cfg.json and sae_weights.safetensors, or its contents: arrays by
# their tensors' names, and what cfg.json says.
Source = Union[
    str, pathlib.Path, Tuple[Mapping[str, Any], Mapping[str, Any]]
]

_PIECE = 1 << 20


def entry(
    name: str,
    model: str,
    path: str = "",
    processing: Optional[str] = None,
    dtype: Optional[str] = None,
    **fields: Any,
) -> _protos.catalog_config.DictionaryEntry:
    """A dictionary's line of the catalog; `fields` are its other ones."""
    for field in ("tap", "mlp_source"):
        if isinstance(fields.get(field), str):
            fields[field] = fields[field].upper()
    try:
        return _protos.catalog_config.DictionaryEntry(
            name=name,
            model=model,
            path=path,
            processing=_requests.processing_code(processing),
            dtype=_dtype(dtype),
            **fields,
        )
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"dictionary {name!r}: {error}") from None


def model_entry(
    name: str, path: str, dtype: Optional[str], device: str
) -> _protos.catalog_config.ModelEntry:
    return _protos.catalog_config.ModelEntry(
        name=name, path=path, dtype=_dtype(dtype), device=device
    )


def upload(
    connection: Connection,
    dictionary: _protos.catalog_config.DictionaryEntry,
    source: Source,
) -> Any:
    """The server's description of the uploaded dictionary."""
    if isinstance(source, (str, pathlib.Path)):
        for name in ("cfg.json", "sae_weights.safetensors"):
            if not (pathlib.Path(source) / name).is_file():
                raise InvalidArgument(f"source: {source} has no {name}")
    return connection.unary(
        _Streamed(connection.catalog.UploadDictionary),
        lambda: _messages(dictionary, source),
    )


class _Streamed:
    """A call that streams its request, begun anew for each try."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def future(self, messages: Any, **options: Any) -> Any:
        return self._method.future(messages(), **options)


def _messages(dictionary: Any, source: Source) -> Iterator[Any]:
    request = _protos.catalog.UploadDictionaryRequest
    if isinstance(source, (str, pathlib.Path)):
        folder = pathlib.Path(source)
        cfg = (folder / "cfg.json").read_bytes()
        weights = folder / "sae_weights.safetensors"
        size, pieces = weights.stat().st_size, _file_pieces(weights)
    else:
        tensors, fields = source
        cfg = json.dumps(fields).encode()
        size, pieces = _tensor_pieces(tensors)
    yield request(
        header=request.Header(dictionary=dictionary, cfg=cfg, bytes=size)
    )
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield request(piece=piece)
    yield request(sha256=digest.digest())


def _file_pieces(path: pathlib.Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _tensor_pieces(
    tensors: Mapping[str, Any],
) -> Tuple[int, Iterator[bytes]]:
    """A safetensors file of float32 arrays: its size, and its bytes."""
    arrays: List[Any] = []
    header: Dict[str, Any] = {}
    end = 0
    for name, value in tensors.items():
        if hasattr(value, "detach"):  # a torch tensor
            value = value.detach().cpu().float().numpy()
        array = np.ascontiguousarray(value, dtype="<f4").reshape(
            np.shape(value)
        )
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        arrays.append(array)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    begin = struct.pack("<Q", len(text)) + text

    def pieces() -> Iterator[bytes]:
        yield begin
        for array in arrays:
            flat = array.reshape(-1).view(np.uint8)
            for at in range(0, flat.size, _PIECE):
                yield flat[at : at + _PIECE].tobytes()

    return len(begin) + end, pieces()


def _dtype(dtype: Optional[str]) -> Any:
    if dtype is None:
        return _protos.tensor.DTYPE_UNSPECIFIED
    try:
        return _protos.tensor.DType.Value(dtype.upper())
    except ValueError:
        raise InvalidArgument(
            f"dtype: expected float32 or bfloat16, got {dtype!r}"
        ) from None
