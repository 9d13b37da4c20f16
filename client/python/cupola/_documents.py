"""Documents of a corpus, from what people have: lists, JSON lines, plain text,
Parquet and Arrow files."""

from __future__ import annotations

import gzip
import json
import pathlib
from typing import Any, Iterable, Iterator, List, Optional, Union

from . import _requests
from .errors import InvalidArgument

Document = Union[str, List[int]]
_Path = Union[str, pathlib.Path]
# What `client.dataset` takes: a file or files, or documents themselves.
Source = Union[_Path, Iterable[Any]]

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "lines",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
FORMATS = ("jsonl", "lines", "text", "parquet", "arrow")
_ROWS_AT_ONCE = 1024


def documents(
    source: Source, format: Optional[str] = None, column: Optional[str] = None
) -> Iterator[Document]:
    """Texts, or lists of token ids, one after another.

    `source` is a path, or documents: texts or lists of ids (a list of paths is
    pathlib.Path objects). `format`: "jsonl" (a text, a list of ids or an object
    with `column` a line; may be .gz), "lines" (a line that is not blank is a
    document), "text" (a file is one), "parquet", "arrow"; None: by the name's
    end. `column`: "text" by default, or, where there is none, "input_ids" or
    "tokens".
    """
    if format is not None and format not in FORMATS:
        raise InvalidArgument(
            f"format: expected one of {', '.join(FORMATS)}, got {format!r}"
        )
    if isinstance(source, (str, pathlib.Path)):
        yield from _read(pathlib.Path(source), format, column)
        return
    for item in source:
        if isinstance(item, pathlib.Path):
            yield from _read(item, format, column)
        else:
            yield _document(item, "source")


def _document(value: Any, where: str) -> Document:
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return _requests.unsigned(value, f"{where}: token id")
    raise InvalidArgument(
        f"{where}: expected texts or lists of token ids, got an item of type "
        f"{type(value).__name__}"
    )


def _read(
    path: pathlib.Path, format: Optional[str], column: Optional[str]
) -> Iterator[Document]:
    zipped = path.suffix == ".gz"
    suffix = path.with_suffix("").suffix if zipped else path.suffix
    kind = format or _FORMATS.get(suffix.lower())
    if kind is None:
        raise InvalidArgument(
            f"{path}: what is in it cannot be told from its name; give format="
            f" one of {', '.join(FORMATS)}"
        )
    if kind in ("parquet", "arrow"):
        yield from _table(path, kind, column)
        return
    opened: Any = gzip.open if zipped else open
    with opened(path, "rt", encoding="utf-8") as file:
        if kind == "text":
            yield file.read()
            return
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if kind == "lines":
                yield line.rstrip("\r\n")
            else:
                yield _json_line(line, f"{path}:{number}", column)


def _json_line(line: str, where: str, column: Optional[str]) -> Document:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"{where}: this is no JSON: {error}") from None
    if isinstance(value, dict):
        name = _column(list(value), column, where)
        return _document(value[name], f"{where}: {name}")
    return _document(value, where)


def _column(names: List[str], column: Optional[str], where: str) -> str:
    for name in [column] if column else ["text", "input_ids", "tokens"]:
        if name in names:
            return name
    raise InvalidArgument(
        f"{where}: there is no {column or 'text'!r}; there are: "
        f"{', '.join(map(str, names))}. Give column="
    )


def _table(
    path: pathlib.Path, kind: str, column: Optional[str]
) -> Iterator[Document]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InvalidArgument(
            f"{path}: reading {kind} needs pyarrow: pip install pyarrow"
        ) from None
    if kind == "parquet":
        with pyarrow.parquet.ParquetFile(path) as file:
            name = _column(file.schema_arrow.names, column, str(path))
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[name]):
                yield from _cells(batch.column(0), path, name)
        return
    with pyarrow.memory_map(str(path)) as mapped:
        # Both of Arrow's forms: the file, and the stream of `datasets`.
        try:
            reader: Any = pyarrow.ipc.open_file(mapped)
            batches = (
                reader.get_batch(i) for i in range(reader.num_record_batches)
            )
        except pyarrow.ArrowInvalid:
            mapped.seek(0)
            reader = batches = pyarrow.ipc.open_stream(mapped)
        name = _column(reader.schema.names, column, str(path))
        for batch in batches:
            values = batch.column(reader.schema.get_field_index(name))
            for begin in range(0, len(values), _ROWS_AT_ONCE):
                yield from _cells(values[begin : begin + _ROWS_AT_ONCE], path, name)


def _cells(values: Any, path: pathlib.Path, name: str) -> Iterator[Document]:
    for value in values.to_pylist():
        yield _document(value, f"{path}: {name}")
