"""Streamed answers: the one way from a request to arrays and provenance."""

from __future__ import annotations

import time
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Union,
)

from . import _protos
from .errors import DataLoss
from .results import Provenance

if TYPE_CHECKING:
    from .client import Client

# The header's fields that are tensors, in field order: their names, or a
# function where they are nested.
Tensors = Union[
    Sequence[str], Callable[[Any], Sequence[_protos.tensor.Tensor]]
]


class Received(NamedTuple):
    header: Any
    arrays: List[Any]  # as `tensors` listed them; None: the server left it out
    provenance: Provenance


def ask(
    client: Client,
    operation: str,
    request: Any,
    model: str,
    tensors: Tensors,
    required: Optional[int] = None,
) -> Received:
    """Sends `request` to an operation of the Analysis service; `model` is for
    proxies. DataLoss where one of the first `required` tensors (None: any) is
    not there."""
    listed = (
        tensors
        if callable(tensors)
        else lambda header: [getattr(header, name) for name in tensors]
    )
    connection = client._connection
    start = time.perf_counter()
    header, arrays = connection.stream(
        getattr(connection.analysis, operation), request, model, listed
    )
    round_trip = time.perf_counter() - start
    if any(array is None for array in arrays[:required]):
        raise DataLoss("the answer lacks a tensor")
    return Received(
        header, arrays, Provenance.from_message(header.provenance, round_trip)
    )


class ReceivedRows(NamedTuple):
    header: Any
    arrays: List[Any]  # the named ones
    rows: Dict[str, Any]  # the arguments of results.Rows


def ask_rows(
    client: Client, operation: str, request: Any, model: str, names: List[str]
) -> ReceivedRows:
    """As `ask`, for an answer with a row per token: its header ends with the
    rows' prompt and position."""
    header, arrays, provenance = ask(
        client, operation, request, model, [*names, "prompt", "position"]
    )
    *values, prompt, position = arrays
    rows = {
        "prompt": prompt,
        "position": position,
        "provenance": provenance,
        "token_strings": lambda ids: client._token_strings(provenance, ids),
    }
    return ReceivedRows(header, values, rows)
