"""Datasets: corpora that are sent once and named in jobs."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import struct
from typing import TYPE_CHECKING, Any, Iterator, List, Optional, Tuple, Union

import numpy as np

from . import _documents, _html, _protos
from ._documents import Document, Source
from .errors import InvalidArgument

if TYPE_CHECKING:
    from .client import Client
    from .model import Model

_D = _protos.datasets
_LAYOUTS = {False: _D.Tokenization.ONE_ROW, True: _D.Tokenization.PACKED}
_BOS = {
    None: _D.Tokenization.BOS_UNSPECIFIED,
    "none": _D.Tokenization.BOS_NONE,
    "row": _D.Tokenization.BOS_ROW,
    "document": _D.Tokenization.BOS_DOCUMENT,
}
_SEPARATORS = {
    None: _D.Tokenization.SEPARATOR_UNSPECIFIED,
    "none": _D.Tokenization.SEPARATOR_NONE,
    "eos": _D.Tokenization.SEPARATOR_EOS,
    "bos": _D.Tokenization.SEPARATOR_BOS,
}
_TOO_LONG = {
    None: _D.Tokenization.TOO_LONG_UNSPECIFIED,
    "refuse": _D.Tokenization.REFUSE,
    "cut": _D.Tokenization.CUT,
}
# Of one message of an upload.
_MESSAGE_BYTES, _MESSAGE_ROWS = 1 << 20, 4096


def _name_of(codes: Any, code: int) -> Any:
    return next((name for name, value in codes.items() if value == code), None)


@dataclasses.dataclass(frozen=True)
class Tokenization:
    """How documents become rows of tokens.

    A document has a row of its own, of at most `row_tokens` tokens (None: the
    model's context); `too_long` says whether a longer one is an error
    ("refuse", the default) or is "cut". Or documents are `packed` one after
    another into rows of `row_tokens`, with a `separator` between two of them:
    "none", "eos" or "bos". `bos` begins each "row", each "document", or "none";
    None: as usual for the model (token ids: none).
    """

    model: str
    packed: bool = False
    row_tokens: Optional[int] = None
    bos: Optional[str] = None
    separator: Optional[str] = None
    too_long: Optional[str] = None

    def to_message(self) -> Any:
        def code(codes: Any, field: str) -> int:
            value = getattr(self, field)
            try:
                return int(codes[value])
            except (KeyError, TypeError):
                known = ", ".join(repr(name) for name in codes)
                raise InvalidArgument(
                    f"{field}: expected one of {known}, got {value!r}"
                ) from None

        return _D.Tokenization(
            model=self.model,
            layout=code(_LAYOUTS, "packed"),
            row_tokens=self.row_tokens or 0,
            bos=code(_BOS, "bos"),
            separator=code(_SEPARATORS, "separator"),
            too_long=code(_TOO_LONG, "too_long"),
        )

    @classmethod
    def from_message(cls, message: Any) -> Tokenization:
        return cls(
            model=message.model,
            packed=message.layout == _D.Tokenization.PACKED,
            row_tokens=message.row_tokens or None,
            bos=_name_of(_BOS, message.bos),
            separator=_name_of(_SEPARATORS, message.separator),
            too_long=_name_of(_TOO_LONG, message.too_long),
        )


@dataclasses.dataclass(frozen=True)
class TokenizedDataset:
    """Rows of tokens that the server has made of a dataset."""

    tokenization: Tokenization  # with nothing left to a default
    rows: int
    tokens: int
    longest: int  # row
    cut: int  # documents of which something was left out
    digest: str

    @classmethod
    def from_message(cls, message: Any) -> TokenizedDataset:
        return cls(
            tokenization=Tokenization.from_message(message.tokenization),
            rows=message.rows,
            tokens=message.tokens,
            longest=message.longest,
            cut=message.cut,
            digest=message.digest.hex(),
        )


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """A dataset as it was when the server told of it."""

    name: str
    kind: str  # "texts" or "tokens"
    rows: int  # documents
    bytes: int
    sha256: str
    created: datetime.datetime
    expires: Optional[datetime.datetime]  # None: never
    tokenized: Tuple[TokenizedDataset, ...]
    # The token that sent it, which alone may delete it, beside admins.
    owner: str = ""
    error: str = ""  # what is written of it is damaged: it can but be deleted

    @classmethod
    def from_message(cls, message: Any) -> DatasetInfo:
        def moment(micros: int) -> datetime.datetime:
            return datetime.datetime.fromtimestamp(
                micros / 1e6, datetime.timezone.utc
            )

        return cls(
            name=message.name,
            kind=_D.Dataset.Kind.Name(message.kind).lower(),
            rows=message.rows,
            bytes=message.bytes,
            sha256=message.sha256.hex(),
            created=moment(message.created_micros),
            expires=(
                moment(message.expires_micros)
                if message.expires_micros
                else None
            ),
            tokenized=tuple(
                map(TokenizedDataset.from_message, message.tokenized)
            ),
            owner=message.owner,
            error=message.error,
        )

    def __str__(self) -> str:
        if self.error:
            return f"{self.name}: {self.error}"
        return f"{self.name}: {self.rows:,} {self.kind}, {self.bytes:,} bytes"


@dataclasses.dataclass(frozen=True)
class DatasetRows:
    """Rows of a dataset that a job goes over; from `Dataset.select`."""

    dataset: str
    tokenization: Tokenization
    first_row: int = 0
    rows: Optional[int] = None  # None: all from first_row on
    skip_positions: int = 0  # of each row, at its beginning

    def to_message(self) -> Any:
        for field in ("first_row", "rows", "skip_positions"):
            value = getattr(self, field)
            if value is not None and value < (field == "rows"):
                raise InvalidArgument(f"{field}: got {value}")
        return _D.DatasetRows(
            dataset=self.dataset,
            tokenization=self.tokenization.to_message(),
            first_row=self.first_row,
            row_count=self.rows or 0,
            skip_positions=self.skip_positions,
        )


class Dataset:
    """A handle of a dataset; from `Client.dataset` or `Client.datasets`.
    `info` is what was last heard of it."""

    def __init__(self, client: Client, info: DatasetInfo) -> None:
        self._client = client
        self.info = info

    @property
    def name(self) -> str:
        return self.info.name

    def __len__(self) -> int:
        return self.info.rows

    def refresh(self) -> DatasetInfo:
        self.info = dataset(self._client, self.name).info
        return self.info

    def delete(self) -> None:
        """Forgets the dataset; results of jobs stay."""
        connection = self._client._connection
        connection.unary(
            connection.datasets.Delete, _D.DatasetName(name=self.name)
        )

    def tokenize(
        self,
        model: Union[str, Model],
        packed: bool = False,
        row_tokens: Optional[int] = None,
        bos: Optional[str] = None,
        separator: Optional[str] = None,
        too_long: Optional[str] = None,
    ) -> TokenizedDataset:
        """Makes rows of tokens, once per tokenizer; see Tokenization. Jobs do
        it themselves where it has not been done."""
        how = _how(model, packed, row_tokens, bos, separator, too_long)
        connection = self._client._connection
        message = connection.unary(
            connection.datasets.Tokenize,
            _D.TokenizeDatasetRequest(
                dataset=self.name, tokenization=how.to_message()
            ),
            how.model,
        )
        return TokenizedDataset.from_message(message)

    def select(
        self,
        model: Union[str, Model],
        packed: bool = False,
        row_tokens: Optional[int] = None,
        bos: Optional[str] = None,
        separator: Optional[str] = None,
        too_long: Optional[str] = None,
        first_row: int = 0,
        rows: Optional[int] = None,
        skip_positions: int = 0,
    ) -> DatasetRows:
        """Rows for a job, in place of prompts. `skip_positions`: so many first
        positions of each row are not looked at (1 leaves out BOS)."""
        how = _how(model, packed, row_tokens, bos, separator, too_long)
        return DatasetRows(self.name, how, first_row, rows, skip_positions)

    def documents(self, first: int = 0, count: int = 10) -> List[Document]:
        """Some of the documents, as they were sent."""
        return self._read(first, count, None)

    def tokens(
        self, how: Tokenization, first: int = 0, count: int = 10
    ) -> List[List[int]]:
        """Some rows of tokens."""
        rows: Any = self._read(first, count, how)
        return list(rows)

    def _read(
        self, first: int, count: int, how: Optional[Tokenization]
    ) -> List[Document]:
        connection = self._client._connection
        found: List[Document] = []
        while len(found) < count:
            answer = connection.unary(
                connection.datasets.GetRows,
                _D.DatasetRowsRequest(
                    dataset=self.name,
                    tokenization=how.to_message() if how else None,
                    first=first + len(found),
                    count=count - len(found),
                ),
            )
            found += [*answer.texts, *(list(row.ids) for row in answer.tokens)]
            if first + len(found) >= answer.rows:
                break
        return found

    def __repr__(self) -> str:
        return f"Dataset({self.info})"

    def _repr_html_(self) -> str:
        return _html.info_card(self.info)


def _how(
    model: Union[str, Model],
    packed: bool,
    row_tokens: Optional[int],
    bos: Optional[str],
    separator: Optional[str],
    too_long: Optional[str],
) -> Tokenization:
    name = model if isinstance(model, str) else model.info.name
    return Tokenization(name, packed, row_tokens, bos, separator, too_long)


def datasets(client: Client) -> List[Dataset]:
    connection = client._connection
    answer = connection.unary(
        connection.datasets.List, _D.ListDatasetsRequest()
    )
    return [
        Dataset(client, DatasetInfo.from_message(message))
        for message in answer.datasets
    ]


def dataset(client: Client, name: str) -> Dataset:
    connection = client._connection
    message = connection.unary(
        connection.datasets.Get, _D.DatasetName(name=name)
    )
    return Dataset(client, DatasetInfo.from_message(message))


def upload(
    client: Client,
    name: str,
    source: Source,
    format: Optional[str],
    column: Optional[str],
    skip_empty: bool,
    keep: Optional[datetime.timedelta],
) -> Dataset:
    """See Client.dataset."""
    header = _D.UploadDatasetRequest.Header(
        name=name, keep_seconds=int(keep.total_seconds()) if keep else 0
    )
    connection = client._connection
    message = connection.upload(
        connection.datasets.Upload,
        _messages(header, _documents.documents(source, format, column), skip_empty),
    )
    return Dataset(client, DatasetInfo.from_message(message))


def _messages(
    header: Any, found: Iterator[Document], skip_empty: bool
) -> Iterator[Any]:
    """The header, the documents and the checksum of an upload."""
    yield _D.UploadDatasetRequest(header=header)
    digest: Any = None
    rows, room = _D.UploadDatasetRequest.Rows(), _MESSAGE_BYTES
    for document in found:
        if skip_empty and not len(document):
            continue
        texts = isinstance(document, str)
        if digest is None:
            digest = _digest(texts)
        data = _bytes_of(document)
        kind = b"B" if texts else b"i"
        count = len(data) if texts else len(document)
        digest.update(kind + struct.pack("<Q", count) + data)
        waiting = len(rows.texts) + len(rows.tokens)
        if waiting and (len(data) > room or waiting == _MESSAGE_ROWS):
            yield _D.UploadDatasetRequest(rows=rows)
            rows, room = _D.UploadDatasetRequest.Rows(), _MESSAGE_BYTES
        room -= len(data)
        if texts:
            rows.texts.append(document)
        else:
            rows.tokens.add(ids=document)
    if rows.texts or rows.tokens:
        yield _D.UploadDatasetRequest(rows=rows)
    yield _D.UploadDatasetRequest(
        sha256=digest.digest() if digest else bytes(32)
    )


def _digest(texts: bool) -> Any:
    domain = b"dataset/texts/1" if texts else b"dataset/tokens/1"
    return hashlib.sha256(b"D" + struct.pack("<Q", len(domain)) + domain)


def _bytes_of(document: Document) -> bytes:
    if not isinstance(document, str):
        return np.asarray(document, "<i4").tobytes()
    try:
        return document.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            "source: a text holds lone surrogates, which are not Unicode"
        ) from None
