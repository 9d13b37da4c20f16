"""Which features of one dictionary are which of others."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _protos, _requests, _submit
from ._requests import Positions, Prompts
from .datasets import DatasetRows
from .errors import InvalidArgument
from .jacobian import code_of

if TYPE_CHECKING:
    from .client import Client
    from .dictionary import Dictionary
    from .jobs import Job

_J = _protos.jobs
_POLICIES = {
    "correct": _J.GetFeatureMatchingRequest.CORRECT,
    "upstream": _J.GetFeatureMatchingRequest.UPSTREAM,
}
_TENSORS = [
    "matched",
    "distances",
    "fractions",
    "appearing",
    "cosines",
    "alike",
]


@dataclasses.dataclass(frozen=True)
class Matched:
    """The exact one-to-one assignment of A's latents to B's.

    matched[i] is B's latent for A's i, or -1; distances[i] is 1 - cosine.
    Dead latents: NaN with the policy "correct", -1 with "upstream"'s.
    """

    matched: NDArray[np.int64]
    distances: NDArray[np.float64]
    counted: int

    def permute(
        self, tensor: ArrayLike, axis: int = 0
    ) -> NDArray[np.float32]:
        """A tensor of B with its latents in A's order along `axis`: rows of
        W_dec, columns of W_enc, entries of b_enc."""
        if np.any(self.matched < 0):
            raise InvalidArgument("some latents of A have no match")
        return np.take(np.asarray(tensor), self.matched, axis=axis)

    def decoder_cosines(
        self, a_decoder: ArrayLike, b_decoder: ArrayLike
    ) -> NDArray[np.float64]:
        """Cosines of A's decoder rows with their matches', NaN without one."""
        a = np.asarray(a_decoder, np.float64)
        b = np.asarray(b_decoder, np.float64)[np.maximum(self.matched, 0)]
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        live = (norms > 0) & (self.matched >= 0)
        cosines: NDArray[np.float64] = np.full(len(a), np.nan)
        cosines[live] = (a * b).sum(axis=1)[live] / norms[live]
        return cosines


class FeatureMatching:
    """How the latents of one dictionary, A, go with those of others, by the
    cosines of their activations on the same tokens, not centred. The sums
    behind these are of `dtype`: in float32, what shards were merged differs
    from a straight run by some 1e-5 after millions of tokens.

    The numbers stay on the server; each method asks for some. `other` is the
    index of the other dictionary, B, among those that the job was given.
    `dead` says what becomes of latents that were never active: "correct" (a
    pair with one has no distance, and fractions are of A's latents that are
    not dead) or "upstream" (as published: distance -1 where latent i of A or
    latent i of B is dead, so that they count as matched).
    """

    def __init__(self, client: Client, job: str) -> None:
        self._client = client
        self.job = job
        header, _ = self._fetch(0)
        self.tokens: int = header.tokens
        self.dtype = "float64" if header.float64 else "float32"

    def _fetch(self, other: int, dead: str = "correct", **wanted: Any) -> Any:
        connection = self._client._connection
        request = _J.GetFeatureMatchingRequest(
            job=self.job,
            other=other,
            dead_policy=code_of(dead, _POLICIES, "dead"),
            **wanted,
        )
        header, arrays = connection.stream(
            connection.jobs.GetFeatureMatching,
            request,
            "",
            lambda header: [getattr(header, name) for name in _TENSORS],
        )
        return header, dict(zip(_TENSORS, arrays))

    def match(self, other: int = 0, dead: str = "correct") -> Matched:
        """The exact assignment; it is computed when first asked for."""
        header, arrays = self._fetch(other, dead, matching=True)
        return Matched(arrays["matched"], arrays["distances"], header.counted)

    def fractions(
        self,
        thresholds: ArrayLike = (0.1, 0.3, 0.5, 0.7, 0.9),
        other: int = 0,
        dead: str = "correct",
    ) -> NDArray[np.float64]:
        """The fraction of latents matched below each distance."""
        values = np.atleast_1d(np.asarray(thresholds, np.float64)).tolist()
        _, arrays = self._fetch(other, dead, thresholds=values)
        fractions: NDArray[np.float64] = arrays["fractions"]
        return fractions

    def appearing(
        self, at: int, threshold: float = 0.5, dead: str = "correct"
    ) -> NDArray[np.int64]:
        """A's latents without a distance below the threshold in all of the
        others before `at`, with one in all from there on."""
        _, arrays = self._fetch(
            0, dead, appearing_at=at, appearing_threshold=threshold
        )
        appearing: NDArray[np.int64] = arrays["appearing"]
        return appearing

    def cosines(
        self, rows: Union[int, Sequence[int]], other: int = 0
    ) -> NDArray[np.float32]:
        """float32 [len(rows), latents of B]; of one latent [latents of B]."""
        one = _requests.is_int(rows)
        several = [rows] if one else list(rows)  # type: ignore[arg-type]
        _, arrays = self._fetch(
            other, rows=_requests.unsigned(several, "rows")
        )
        cosines: NDArray[np.float32] = arrays["cosines"]
        return cosines[0] if one else cosines

    def most_alike(
        self, rows: Sequence[int], top: int = 10, other: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """B's most alike latents of each of `rows` and their cosines,
        [len(rows), top] each, descending."""
        _, arrays = self._fetch(
            other, rows=_requests.unsigned(list(rows), "rows"), top=top
        )
        return arrays["alike"], arrays["cosines"]

    def save_permuted(
        self, folder: Union[str, os.PathLike[str]], other: int = 0
    ) -> Path:
        """Writes dictionary B with its latents in A's order, as a folder that
        SAELens and a server read (Dictionary.save_saelens): its latent i is the
        one that A's latent i was matched with."""
        matched = self.match(other).matched
        if np.any(matched < 0):
            raise InvalidArgument(
                f"other: {np.sum(matched < 0)} latents of A have no match in "
                f"{other}; accepted: a dictionary with as many latents as A"
            )
        provenance = self._client.job(self.job).info.provenance
        assert provenance is not None
        name = provenance.parameters["others"][other]
        return self._client.dictionary(name).save_saelens(folder, matched)

    def __repr__(self) -> str:
        return f"FeatureMatching of {self.job}: {self.tokens:,} tokens"


def submit(
    dictionary: Dictionary,
    others: Sequence[Union[str, Dictionary]],
    rows: Union[Prompts, DatasetRows],
    positions: Positions,
    min_activation: float,
    dtype: Optional[str],
    prepend_bos: Optional[bool],
    chunk_tokens: Optional[int],
    options: Dict[str, Any],
) -> Job:
    """See Dictionary.match."""
    wide = None
    if dtype is not None:
        wide = code_of(dtype, {"float32": False, "float64": True}, "dtype")
    request = _J.MatchFeaturesRequest(
        dictionary=dictionary.name,
        others=[
            other if isinstance(other, str) else other.name for other in others
        ],
        positions=_requests.positions_message(positions),
        processing=_requests.processing_code(dictionary.processing),
        min_activation=min_activation,
        float64=wide,
        chunk_tokens=chunk_tokens or 0,
        options=_submit.options_message(**options),
    )
    if isinstance(rows, DatasetRows):
        request.rows.CopyFrom(rows.to_message())
    else:
        request.prompts.CopyFrom(_requests.prompts_message(rows, prepend_bos))
    return _submit.send(
        dictionary._client, "MatchFeatures", request, dictionary.info.model
    )
