"""Tensors of the wire and numpy arrays, and streams of them."""

from __future__ import annotations

import math
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from . import _protos
from .errors import DataLoss, InvalidArgument

_T = _protos.tensor

# Element types as they lie in the bytes (little-endian). numpy has no bfloat16:
# its bits travel as uint16 and become float32 in receive.
_WIRE: Dict[_T.DType, np.dtype[Any]] = {
    _T.FLOAT32: np.dtype("<f4"),
    _T.BFLOAT16: np.dtype("<u2"),
    _T.FLOAT16: np.dtype("<f2"),
    _T.FLOAT64: np.dtype("<f8"),
    _T.INT32: np.dtype("<i4"),
    _T.UINT32: np.dtype("<u4"),
    _T.INT64: np.dtype("<i8"),
}


def to_tensor(array: NDArray[Any]) -> _protos.tensor.Tensor:
    """The message for `array`, whose dtype must be one of the wire's."""
    for code, dtype in _WIRE.items():
        if array.dtype == dtype and code != _T.BFLOAT16:
            data = np.ascontiguousarray(array, dtype)
            return _T.Tensor(dtype=code, shape=data.shape, data=data.tobytes())
    raise TypeError(f"no wire type for {array.dtype}")


def to_rows(inputs: Any, width: int) -> NDArray[np.float32]:
    """`inputs` as float32 [n, width].

    Takes one vector, a matrix, a list of matrices (one per prompt, as
    Activations hold them) or arrays with more dimensions whose last one, or
    all but the first together ([n, heads, d_head]), make up the width.
    """
    if isinstance(inputs, (list, tuple)) and all(
        np.ndim(item) > 1 for item in inputs
    ):
        inputs = np.concatenate(list(inputs)) if inputs else inputs
    try:
        array = np.asarray(inputs)
    except ValueError as error:  # ragged
        raise InvalidArgument(f"inputs: {error}") from None
    if array.dtype.kind not in "fiu":
        raise InvalidArgument(
            f"inputs: expected an array of numbers, got {array.dtype}"
        )
    shape = array.shape
    split = array.ndim > 2 and math.prod(shape[1:]) == width
    if shape[-1:] != (width,) and not split:
        raise InvalidArgument(
            f"inputs: expected shape [n, {width}], got {list(shape)}"
        )
    return np.ascontiguousarray(array.reshape(-1, width), np.float32)


def of_sparse_rows(rows: Any) -> List[_protos.tensor.Tensor]:
    return [rows.indptr, rows.indices, rows.values]


def to_csr(indptr: Any, indices: Any, values: Any, columns: int) -> Any:
    """A scipy matrix of the arrays of_sparse_rows named."""
    return csr_matrix(
        (values, indices.astype(np.int32, copy=False), indptr),
        shape=(len(indptr) - 1, columns),
    )


def receive(
    call: Iterator[Any],
    tensors: Callable[[Any], Sequence[_protos.tensor.Tensor]],
) -> Tuple[Any, List[Optional[NDArray[Any]]]]:
    """Reads a streamed answer: its header and the arrays of `tensors(header)`.

    `tensors` lists the header's tensors in field order. Those that came empty
    are filled, in that order, from the chunks that follow. A tensor the server
    left out is None; bfloat16 becomes float32. Raises DataLoss when the bytes
    do not add up.
    """
    first = next(iter(call), None)
    if first is None or not first.HasField("header"):
        raise DataLoss("the answer has no header")
    header = first.header
    arrays: List[Optional[NDArray[Any]]] = []
    holes: List[NDArray[Any]] = []
    for tensor in tensors(header):
        array = _allocate(tensor)
        arrays.append(array)
        if array is None:
            continue
        if tensor.data:
            if len(tensor.data) != array.nbytes:
                raise DataLoss(
                    f"a tensor of {array.nbytes} bytes came with "
                    f"{len(tensor.data)}"
                )
            array.reshape(-1)[:] = np.frombuffer(tensor.data, array.dtype)
        elif array.nbytes:
            holes.append(array)
    _fill(holes, call)
    for i, (array, tensor) in enumerate(zip(arrays, tensors(header))):
        if array is not None and tensor.dtype == _T.BFLOAT16:
            arrays[i] = bfloat16_to_float32(array)
    return header, arrays


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """A bfloat16 is the upper half of the float32 of the same value."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _allocate(tensor: _protos.tensor.Tensor) -> Optional[NDArray[Any]]:
    if tensor.dtype == _T.DTYPE_UNSPECIFIED:
        return None
    dtype = _WIRE.get(tensor.dtype)
    if dtype is None or any(size < 0 for size in tensor.shape):
        raise DataLoss(
            f"a tensor of type {tensor.dtype} and shape {list(tensor.shape)}"
        )
    return np.empty(tuple(tensor.shape), dtype)


def _fill(holes: List[NDArray[Any]], call: Iterator[Any]) -> None:
    """Spreads the chunks of `call` over `holes`."""
    targets = iter(holes)
    target = memoryview(b"")
    expected = sum(hole.nbytes for hole in holes)
    received = 0
    for message in call:
        chunk = memoryview(message.chunk)
        received += len(chunk)
        if received > expected:
            break
        while len(chunk):
            if not len(target):
                target = next(targets).data.cast("B")
            part = min(len(target), len(chunk))
            target[:part] = chunk[:part]
            target, chunk = target[part:], chunk[part:]
    if received != expected:
        raise DataLoss(
            f"the answer should be {expected} bytes of chunks, got "
            f"{'more' if received > expected else received}"
        )
