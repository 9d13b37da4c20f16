"""Sparse activations of a dictionary on a corpus, kept by the server."""

from __future__ import annotations

import dataclasses
import datetime
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterator,
    List,
    Optional,
    Tuple,
    Union,
)

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, vstack

from . import _protos, _requests, _submit, _tensors
from ._requests import Positions, Prompts
from .datasets import DatasetRows
from .errors import NotFound
from .job_info import JobProvenance

if TYPE_CHECKING:
    from .client import Client
    from .dictionary import Dictionary
    from .jobs import Job

_S = _protos.stores

_ANSWER_BYTES = 64 << 20  # about what is asked for at once


@dataclasses.dataclass(frozen=True)
class StoreInfo:
    """A store as it was when the server told of it."""

    key: str
    d_sae: int
    tokens: int  # when it is complete
    tokens_there: int
    entries: int  # activations that are there
    bytes: int  # on the server's disk
    complete: bool
    created: datetime.datetime
    provenance: JobProvenance

    @staticmethod
    def from_message(message: Any) -> StoreInfo:
        return StoreInfo(
            key=message.key,
            d_sae=message.d_sae,
            tokens=message.tokens,
            tokens_there=message.tokens_there,
            entries=message.entries,
            bytes=message.bytes,
            complete=message.complete,
            created=datetime.datetime.fromtimestamp(
                message.created_micros / 1e6, datetime.timezone.utc
            ),
            provenance=JobProvenance.from_message(message.provenance),
        )


class ActivationStore:
    """The active latents of every token of a corpus, on the server's disk.

    Tokens are numbered in the order of the rows that the job went over. What is
    asked for comes in parts, so that a store may be larger than an answer.
    Jobs over the same tokens of the same dictionary read it in place of
    computing."""

    def __init__(self, client: Client, info: StoreInfo) -> None:
        self._client = client
        self.info = info

    @property
    def key(self) -> str:
        return self.info.key

    @property
    def shape(self) -> Tuple[int, int]:
        return self.info.tokens, self.info.d_sae

    def csr(self, first: int = 0, count: Optional[int] = None) -> csr_matrix:
        """float32 [count, d_sae]: tokens `first` to `first + count - 1`, to the
        last without a count."""
        parts = [part for part, _, _ in self._parts(first, count)]
        return vstack(parts, format="csr") if len(parts) > 1 else parts[0]

    def coo(self, first: int = 0, count: Optional[int] = None) -> coo_matrix:
        """The same as triples; row 0 is the token `first`."""
        return self.csr(first, count).tocoo()

    def batches(self, tokens: int = 65536) -> Iterator[csr_matrix]:
        """All tokens, so many at a time: memory holds one batch."""
        for first in range(0, self.info.tokens, tokens):
            yield self.csr(first, min(tokens, self.info.tokens - first))

    def places(
        self, first: int = 0, count: Optional[int] = None
    ) -> Tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Where each token stands: the dataset's row (or the prompt), and its
        position in it."""
        parts = list(self._parts(first, count))
        return (
            np.concatenate([row for _, row, _ in parts]),
            np.concatenate([position for _, _, position in parts]),
        )

    def refresh(self) -> StoreInfo:
        self.info = store(self._client, self.key).info
        return self.info

    def delete(self) -> None:
        """Deletes it from the server's disk; results of jobs stay."""
        connection = self._client._connection
        connection.unary(connection.stores.Delete, _S.StoreId(key=self.key))

    def _parts(
        self, first: int, count: Optional[int]
    ) -> Iterator[Tuple[csr_matrix, NDArray[np.int64], NDArray[np.int32]]]:
        of_token = 24 + 8 * self.info.entries // max(self.info.tokens, 1)
        most = max(_ANSWER_BYTES // of_token, 1)
        # What is out of range the server refuses.
        left = self.info.tokens - first if count is None else count
        while True:
            some = min(left, most) if left > 0 else left
            yield self._read(first, some)
            first, left = first + some, left - some
            if left <= 0:
                return

    def _read(
        self, first: int, count: int
    ) -> Tuple[csr_matrix, NDArray[np.int64], NDArray[np.int32]]:
        connection = self._client._connection
        header, arrays = connection.stream(
            connection.stores.Read,
            _S.ReadStoreRequest(key=self.key, first_token=first, tokens=count),
            self.info.provenance.model,
            lambda header: [
                *_tensors.of_sparse_rows(header.features),
                header.row,
                header.position,
            ],
        )
        *features, row, position = arrays
        csr = _tensors.to_csr(*features, header.features.columns)
        return csr, row, position

    def __repr__(self) -> str:
        told, made = self.info, self.info.provenance
        return (
            f"ActivationStore of {', '.join(made.dictionaries)} on "
            f"{made.dataset or 'prompts'}: {told.tokens_there:,} of "
            f"{told.tokens:,} tokens, {told.entries:,} activations, "
            f"{told.bytes:,} bytes"
        )


def stores(client: Client) -> List[ActivationStore]:
    """See Client.activation_stores."""
    connection = client._connection
    answer = connection.unary(connection.stores.List, _S.ListStoresRequest())
    return [
        ActivationStore(client, StoreInfo.from_message(one))
        for one in answer.stores
    ]


def store(client: Client, key: str) -> ActivationStore:
    """See Client.activation_store."""
    for one in stores(client):
        if one.key == key:
            return one
    raise NotFound(
        f"there is no store {key!r}; accepted: a key of activation_stores()"
    )


def submit(
    dictionary: Dictionary,
    rows: Union[Prompts, DatasetRows],
    positions: Positions,
    min_activation: float,
    prepend_bos: Optional[bool],
    chunk_tokens: Optional[int],
    options: Dict[str, Any],
) -> Job:
    """See Dictionary.store."""
    request = _S.StoreActivationsRequest(
        dictionary=dictionary.name,
        positions=_requests.positions_message(positions),
        processing=_requests.processing_code(dictionary.processing),
        min_activation=min_activation,
        chunk_tokens=chunk_tokens or 0,
        options=_submit.options_message(**options),
    )
    if isinstance(rows, DatasetRows):
        request.rows.CopyFrom(rows.to_message())
    else:
        request.prompts.CopyFrom(_requests.prompts_message(rows, prepend_bos))
    connection = dictionary._client._connection
    return _submit.send(
        dictionary._client,
        connection.stores.Store,
        request,
        dictionary.info.model,
    )
