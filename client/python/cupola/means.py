"""Mean activations, and those that the server keeps under a name."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, Any, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from . import _answers, _protos, _requests
from ._requests import Positions, Prompts
from .results import Provenance

if TYPE_CHECKING:
    from .model import Model


@dataclasses.dataclass(frozen=True)
class StoredMean:
    """What is known of a mean, but for its numbers."""

    name: str  # empty: it was only answered
    hook: str
    processing: str
    shape: Tuple[int, ...]
    positions: int  # how many it is the mean of
    digest: str
    written: datetime.datetime

    @classmethod
    def from_message(cls, message: Any) -> StoredMean:
        return cls(
            name=message.name,
            hook=message.hook,
            processing=_protos.common.Processing.Name(
                message.processing
            ).lower(),
            shape=tuple(message.shape),
            positions=message.positions,
            digest=message.digest.hex(),
            written=datetime.datetime.fromtimestamp(
                message.written_seconds, datetime.timezone.utc
            ),
        )


class MeanActivation:
    """The mean of a hook point's value; as an array, its `value`."""

    def __init__(
        self,
        value: NDArray[np.float32],
        stored: StoredMean,
        provenance: Provenance,
    ) -> None:
        self.value = value  # the hook point's shape per position
        self.stored = stored
        self.provenance = provenance

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def hook(self) -> str:
        return self.stored.hook

    @property
    def positions(self) -> int:
        """How many it is the mean of."""
        return self.stored.positions

    @property
    def from_cache(self) -> bool:
        return self.provenance.from_cache

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.array(self.value, dtype=dtype)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return (
            f"MeanActivation{name} of {self.hook} over {self.positions} "
            f"positions, shape {list(self.value.shape)}"
        )


def mean_activation(
    model: Model,
    prompts: Prompts,
    hook: str,
    positions: Positions,
    name: Optional[str],
    prepend_bos: Optional[bool],
) -> MeanActivation:
    """See Model.mean_activation."""
    request = _protos.means.MeanActivationRequest(
        model=model.name,
        prompts=_requests.prompts_message(prompts, prepend_bos),
        hook=hook,
        positions=_requests.positions_message(positions),
        processing=_requests.processing_code(model.processing),
        name=name or "",
    )
    header, (value,), provenance = _answers.ask(
        model._client, "MeanActivation", request, model.name, ["mean"]
    )
    return MeanActivation(
        value, StoredMean.from_message(header.stored), provenance
    )


def means(model: Model) -> List[StoredMean]:
    """See Model.means."""
    connection = model._client._connection
    answer = connection.unary(
        connection.analysis.ListMeans,
        _protos.means.ListMeansRequest(model=model.name),
        model.name,
    )
    return [StoredMean.from_message(message) for message in answer.means]


def delete_mean(model: Model, name: str, hook: str) -> None:
    """See Model.delete_mean."""
    connection = model._client._connection
    connection.unary(
        connection.analysis.DeleteMean,
        _protos.means.DeleteMeanRequest(
            model=model.name,
            name=name,
            hook=hook,
            processing=_requests.processing_code(model.processing),
        ),
        model.name,
    )
