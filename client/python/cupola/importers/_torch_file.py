"""Reads what torch.save wrote, with NumPy alone and without unpickling.

Three containers: the zip archive of torch >= 1.6, the sequence of pickles
before it, and a (perhaps gzipped) plain pickle whose storages are such
sequences themselves. Tensors stay on the disk until they are loaded. Layouts:
torch/serialization.py and torch/_utils.py.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    Callable,
    Dict,
    FrozenSet,
    List,
    NamedTuple,
    Optional,
    Tuple,
)

import numpy as np
from numpy.typing import NDArray

from ._arrays import BFLOAT16, ZIP_ERRORS, listed, to_float32
from ._failure import ImportFailed, short
from ._pickle import Allowed, Budget, read_pickle
from ._safetensors import LazyTensor

_MAX_PICKLE = 16 << 20  # of one that describes tensors and holds none
# Of one that holds them, when unzipped: weights hardly compress.
_MAX_PLAIN, _MAX_RATIO, _FREE = 8 << 30, 100, 64 << 20
_MAX_STORAGES = 256  # of a plain pickle
_MAX_DIMENSIONS, _MAX_SIZE = 8, 1 << 62
# What the sequence of pickles begins with.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_DTYPES = (
    *("float64", "float32", "float16", "bfloat16"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)


class _Type(NamedTuple):
    """A storage's type on the pickle's stack."""

    name: str


class _Storage(NamedTuple):
    kind: str  # of _TYPES' values
    numel: int
    load: Callable[[], bytes]

    @property
    def size(self) -> int:
        return self.numel * _item_size(self.kind)


def read_torch(path: Path, classes: FrozenSet[str] = frozenset()) -> Any:
    """The saved value: plain values, LazyTensors, and Records of `classes`.

    Raises ImportFailed for what is damaged, or names anything else.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        if start.startswith(b"PK"):
            return _read_zip(path, classes)
        if start.startswith(b"\x1f\x8b"):
            with gzip.open(path) as unzipped:
                return _read_plain(
                    unzipped,  # type: ignore[arg-type]
                    min(_MAX_PLAIN, _FREE + _MAX_RATIO * path.stat().st_size),
                    classes,
                )
        if start.startswith(b"\x80"):
            with open(path, "rb") as file:
                if _is_sequence(file):
                    return _read_sequence(lambda: open(path, "rb"), classes)
                return _read_plain(file, _MAX_PLAIN, classes)
    except (*ZIP_ERRORS, OSError) as error:
        raise ImportFailed(f"{path.name} is damaged: {error}") from None
    except ImportFailed as error:
        raise ImportFailed(f"{path.name}: {error}") from None
    raise ImportFailed(f"{path.name} is no file of torch.save")


def _allowed(
    classes: FrozenSet[str], from_bytes: Optional[Callable[[bytes], Any]] = None
) -> Allowed:
    functions: Dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": _empty_dict,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch.Size": _size,
        "torch.device": _device,
    }
    if from_bytes:
        functions["torch.storage._load_from_bytes"] = from_bytes
    constants: Dict[str, Any] = {f"torch.{name}": name for name in _DTYPES}
    constants.update({f"torch.{name}": _Type(name) for name in _TYPES})
    return Allowed(functions, constants, classes)


def _empty_dict(*items: Any) -> Dict[Any, Any]:
    if items:
        raise ImportFailed("an OrderedDict with items at once is not read")
    return {}


def _size(sizes: Any) -> Tuple[int, ...]:
    """Only what is small is copied: a file may ask for it any number of
    times."""
    if (
        not isinstance(sizes, (tuple, list))
        or len(sizes) > _MAX_DIMENSIONS
        or not all(type(n) is int and 0 <= n < _MAX_SIZE for n in sizes)
    ):
        raise ImportFailed("a tensor's description is damaged")
    return tuple(sizes)


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, (int, type(None))):
        raise ImportFailed("a device's description is damaged")
    return kind


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> LazyTensor:
    """A view of a storage. Refuses one that would reach beyond its storage, or
    repeat its values to more than are there."""
    shape, strides, (offset,) = _size(shape), _size(strides), _size((offset,))
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ImportFailed("a tensor's description is damaged")
    count, last = 1, offset
    for size, stride in zip(shape, strides):
        count *= size
        last += (size - 1) * stride
    if count > storage.numel or (count and last >= storage.numel):
        raise ImportFailed(
            f"a tensor of shape {list(shape)} does not fit its storage of "
            f"{storage.numel} values"
        )

    def load() -> NDArray[np.float32]:
        try:
            data = storage.load()
        except ZIP_ERRORS as error:
            raise ImportFailed(f"a tensor's data is damaged: {error}") from None
        if len(data) != storage.size:
            raise ImportFailed("a tensor's data has become shorter")
        flat = np.frombuffer(data, _numpy_type(storage.kind))[offset:]
        if not count:
            try:
                return np.empty(shape, "<f4")
            except ValueError:
                raise ImportFailed("a tensor's shape is damaged") from None
        # The stride of a single one is never used, and may be any number.
        steps = [
            step * flat.itemsize if size > 1 else 0
            for size, step in zip(shape, strides)
        ]
        view = np.lib.stride_tricks.as_strided(
            flat, shape, steps, writeable=False
        )
        return to_float32(view, storage.kind)

    return LazyTensor(tuple(shape), load)


def _numpy_type(kind: str) -> str:
    return "<u2" if kind == BFLOAT16 else kind


def _item_size(kind: str) -> int:
    return np.dtype(_numpy_type(kind)).itemsize


def _reference(value: Any) -> Tuple[str, str, int]:
    """The type, the key and the count that a persistent id gives a storage."""
    if (
        not isinstance(value, tuple)
        or len(value) < 5
        or value[0] != "storage"
        or not isinstance(value[1], _Type)
        or not isinstance(value[2], str)
        or type(value[4]) is not int
        or not 0 <= value[4] < _MAX_SIZE
    ):
        raise ImportFailed("a reference to a storage is damaged")
    return _TYPES[value[1].name], value[2], value[4]


def _read_zip(path: Path, classes: FrozenSet[str]) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ImportFailed("the archive is not one that torch.save writes")
        prefix = pickles[0][: -len("data.pkl")]
        order = members.get(prefix + "byteorder")
        if order and (
            order.compress_type != zipfile.ZIP_STORED
            or order.file_size != 6
            or archive.read(order) != b"little"
        ):
            raise ImportFailed("the tensors are big-endian, which is not read")

        def storage(value: Any) -> _Storage:
            kind, key, count = _reference(value)
            info = members.get(f"{prefix}data/{key}")
            if info is None or info.compress_type != zipfile.ZIP_STORED:
                raise ImportFailed(
                    f"the archive lacks the data of storage {short(key)}"
                )

            def load(info: zipfile.ZipInfo = info) -> bytes:
                with zipfile.ZipFile(path) as again:
                    return again.read(info)

            found = _Storage(kind, count, load)
            if info.file_size != found.size:
                raise ImportFailed(
                    f"storage {key} has {info.file_size} bytes where "
                    f"{found.size} are described"
                )
            return found

        with archive.open(pickles[0]) as file:
            return read_pickle(
                file,  # type: ignore[arg-type]
                _MAX_PICKLE,
                _allowed(classes),
                storage,
            )


def _is_sequence(file: BinaryIO) -> bool:
    try:
        first = read_pickle(file, 64, Allowed({}, {}, frozenset()))
    except ImportFailed:
        first = None
    file.seek(0)
    return bool(first == _MAGIC)


def _read_sequence(
    opened: Callable[[], BinaryIO],
    classes: FrozenSet[str],
    budget: Optional[Budget] = None,
) -> Any:
    """Pickles: the magic number, the protocol, facts about the machine, the
    value, the storages' keys; then each storage as its int64 count and data."""
    storages: Dict[str, _Storage] = {}
    starts: Dict[str, int] = {}

    def storage(value: Any) -> _Storage:
        kind, key, count = _reference(value)
        if len(value) > 5 and value[5] is not None:
            raise ImportFailed("storages that share data are not read")

        def load() -> bytes:
            with opened() as again:
                again.seek(starts[key])
                return again.read(count * _item_size(kind))

        made = storages.setdefault(key, _Storage(kind, count, load))
        if made[:2] != (kind, count):
            raise ImportFailed(f"storage {key} is described in two ways")
        return made

    plain = Allowed({}, {}, frozenset())
    with opened() as file:
        budget = budget or Budget()
        facts = [
            read_pickle(file, _MAX_PICKLE, plain, budget=budget)
            for _ in range(3)
        ]
        if type(facts[1]) is not int or facts[1] != _PROTOCOL:
            raise ImportFailed(
                f"protocol {short(facts[1])} of torch.save is not known"
            )
        if not isinstance(facts[2], dict):
            raise ImportFailed("the facts about the machine are damaged")
        if facts[2].get("little_endian") is not True:
            raise ImportFailed("the tensors are big-endian, which is not read")
        value = read_pickle(
            file, _MAX_PICKLE, _allowed(classes), storage, budget
        )
        keys = read_pickle(file, _MAX_PICKLE, plain, budget=budget)
        if (
            not isinstance(keys, list)
            or not all(isinstance(key, str) for key in keys)
            or sorted(keys) != sorted(storages)
        ):
            raise ImportFailed("the list of storages is damaged")
        at = file.tell()
        end = file.seek(0, io.SEEK_END)
        for key in keys:
            file.seek(at)
            (count,) = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
            starts[key] = at + 8
            at += 8 + storages[key].size
            if count != storages[key].numel or at > end:
                raise ImportFailed(f"the data of storage {short(key)} is cut"
                    " short")
    return value


def _read_plain(
    file: BinaryIO, limit: int, classes: FrozenSet[str]
) -> Any:
    budget = Budget()  # of the pickles within, too
    calls = 0

    def from_bytes(data: Any) -> Any:
        nonlocal calls
        calls += 1
        if not isinstance(data, bytes) or calls > _MAX_STORAGES:
            raise ImportFailed("a storage's data is damaged")
        return _read_sequence(lambda: io.BytesIO(data), frozenset(), budget)

    allowed = _allowed(classes, from_bytes)
    value = read_pickle(file, limit, allowed, budget=budget)
    if file.read(1):  # at its end a gzipped file's checksum is compared
        raise ImportFailed("something follows the pickle")
    return value


def tensors_of(
    value: Any, name: str, wanted: Optional[List[str]] = None
) -> Dict[str, LazyTensor]:
    """The tensors of a state dict, `wanted` among them."""
    if not isinstance(value, dict):
        raise ImportFailed(f"{name} holds no dictionary of tensors")
    tensors = {
        str(key): item
        for key, item in value.items()
        if isinstance(item, LazyTensor)
    }
    for key in wanted or []:
        if key not in tensors:
            raise ImportFailed(
                f"{name} has no tensor {key}; it has {listed(tensors)}"
            )
    return tensors
