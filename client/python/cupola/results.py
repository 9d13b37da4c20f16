"""Answers about a model: activations, reconstructions, and where they come
from."""

from __future__ import annotations

import dataclasses
import itertools
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
)

import numpy as np
from numpy.typing import NDArray

from . import _protos
from .info import dtype_name, processing_name

# The strings of the tokens of each prompt, from their ids.
TokenStrings = Callable[[List[List[int]]], List[List[str]]]


class Seconds(float):
    """The server's time for an answer: the total, and its stages."""

    lookup: float  # tokenizing, hashing and reading the cache
    queue: float  # waiting for the device
    compute: float  # on the device
    total: float
    round_trip: float  # as the client saw it

    @staticmethod
    def from_message(
        message: _protos.common.StageSeconds, round_trip: float
    ) -> Seconds:
        seconds = Seconds(message.total)
        seconds.lookup = message.lookup
        seconds.queue = message.queue
        seconds.compute = message.compute
        seconds.total = message.total
        seconds.round_trip = round_trip
        return seconds


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How an answer was made."""

    model: str
    model_digest: str  # SHA-256, hexadecimal
    dictionary: str
    dictionary_digest: str
    dtype: str  # that the model computed in
    processing: str
    from_cache: bool
    seconds: Seconds
    token_ids: List[List[int]] = dataclasses.field(repr=False)  # per prompt

    @staticmethod
    def from_message(
        message: _protos.common.Provenance, round_trip: float
    ) -> Provenance:
        return Provenance(
            model=message.model,
            model_digest=message.model_digest.hex(),
            dictionary=message.dictionary,
            dictionary_digest=message.dictionary_digest.hex(),
            dtype=dtype_name(message.dtype),
            processing=processing_name(message.processing),
            from_cache=message.from_cache,
            seconds=Seconds.from_message(message.seconds, round_trip),
            token_ids=[list(prompt.ids) for prompt in message.token_ids],
        )


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a request would take; from `Client.estimate`."""

    parts: int  # prompts, or the like
    cached_parts: int  # of them in the result cache
    rows: int  # of the answer
    columns: int  # d_sae where rows are of latents, else 0
    bytes: int  # on the server, at most
    seconds: float  # on the device
    wait_seconds: float  # in the queue before that
    measured: bool  # False: `seconds` is a guess, none has run yet

    @staticmethod
    def from_message(message: _protos.common.Estimate) -> Estimate:
        return Estimate(
            **{
                field.name: getattr(message, field.name)
                for field in dataclasses.fields(Estimate)
            }
        )


class Answer:
    """What every answer has."""

    provenance: Provenance

    @property
    def from_cache(self) -> bool:
        """Whether every part was read from the server's result cache."""
        return self.provenance.from_cache

    @property
    def seconds(self) -> Seconds:
        return self.provenance.seconds

    def _origin(self) -> str:
        source = "from the cache" if self.from_cache else "computed"
        return f"{source} in {self.seconds * 1e3:.1f} ms"


class Rows(Answer):
    """An answer with a row per token: `prompt`, `position` and `token_ids`
    say which token it is."""

    def __init__(
        self,
        prompt: NDArray[np.int32],
        position: NDArray[np.int32],
        provenance: Provenance,
        token_strings: TokenStrings,
    ) -> None:
        self.prompt = prompt  # [rows]
        self.position = position  # [rows]
        self.provenance = provenance
        self.token_ids = row_token_ids(provenance.token_ids, prompt, position)
        self._token_strings = token_strings

    def __len__(self) -> int:
        return len(self.prompt)

    def _strings(self, ids: NDArray[Any]) -> NDArray[Any]:
        """The texts of token ids, in their shape."""
        flat = [int(index) for index in ids.reshape(-1)]
        texts = self._token_strings([[index] for index in flat]) if flat else []
        return np.array([text for (text,) in texts], object).reshape(ids.shape)


class Activations(Answer, Mapping[str, List[NDArray[Any]]]):
    """Activations by hook point: ``acts[hook][prompt]`` is an array.

    Arrays are [positions, ...], with the hook point's own shape per position.
    Keys are full hook names; a short form that was asked for works too.
    """

    def __init__(
        self,
        arrays: Dict[str, List[NDArray[Any]]],
        positions: List[NDArray[np.int32]],
        aliases: Dict[str, str],
        provenance: Provenance,
    ) -> None:
        self._arrays = arrays
        self._aliases = aliases
        # Per prompt: the token indices that the arrays' rows stand for.
        self.positions = positions
        self.provenance = provenance

    @property
    def hooks(self) -> List[str]:
        return list(self._arrays)

    @property
    def token_ids(self) -> List[List[int]]:
        """All ids of each prompt, BOS included."""
        return self.provenance.token_ids

    def __getitem__(self, hook: str) -> List[NDArray[Any]]:
        return self._arrays[self._aliases.get(hook, hook)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        lines = [
            f"Activations of {self.provenance.model}: "
            f"{_count(len(self.positions), 'prompt')}, {self._origin()}"
        ]
        for hook, arrays in self.items():
            shapes = ", ".join(str(list(array.shape)) for array in arrays[:4])
            more = ", ..." if len(arrays) > 4 else ""
            kind = arrays[0].dtype.name if arrays else ""
            lines.append(f"  {hook}: {kind} {shapes}{more}")
        return "\n".join(lines)


class Reconstruction(Answer):
    """A dictionary's output beside what it should be; one row per token."""

    def __init__(
        self,
        reconstruction: NDArray[np.float32],
        target: Optional[NDArray[np.float32]],
        squared_error: Optional[NDArray[np.float32]],
        token_l0: NDArray[np.float32],
        prompt: NDArray[np.int32],
        position: NDArray[np.int32],
        fvu: float,
        l0: float,
        provenance: Provenance,
    ) -> None:
        self.reconstruction = reconstruction  # [tokens, d_out]
        # [tokens, d_out]: the output hook's activation; None where it is not
        # known (inputs given, two hook points).
        self.target = target
        self.squared_error = squared_error  # [tokens], or None as target
        self.token_l0 = token_l0  # [tokens]: active latents
        self.prompt = prompt  # [tokens]
        self.position = position  # [tokens]
        self.token_ids = row_token_ids(provenance.token_ids, prompt, position)
        # sum |target - reconstruction|^2 / sum |target - mean(target)|^2 over
        # all rows; NaN where target is None or all its rows are equal.
        self.fvu = fvu
        self.l0 = l0  # mean of token_l0
        self.provenance = provenance

    def __len__(self) -> int:
        return len(self.reconstruction)

    def __repr__(self) -> str:
        return (
            f"Reconstruction by {self.provenance.dictionary}: "
            f"{len(self)} tokens, FVU {self.fvu:.4g}, L0 {self.l0:.4g}, "
            f"{self._origin()}"
        )


def row_token_ids(
    token_ids: Sequence[Sequence[int]],
    prompt: NDArray[np.int32],
    position: NDArray[np.int32],
) -> NDArray[np.int64]:
    """The token id of each row; empty where there were no prompts."""
    if not token_ids:
        return np.empty(0, np.int64)
    starts = np.zeros(len(token_ids), np.int64)
    np.cumsum([len(ids) for ids in token_ids[:-1]], out=starts[1:])
    flat = np.fromiter(itertools.chain.from_iterable(token_ids), np.int64)
    return flat[starts[prompt] + position]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
