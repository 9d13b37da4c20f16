"""Which latents of a dictionary are active together over a corpus: a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Union

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix

from . import _protos, _requests, _submit
from ._requests import Positions, Prompts
from .datasets import DatasetRows
from .jacobian import code_of
from .jobs import Job

if TYPE_CHECKING:
    import pandas

    from .client import Client
    from .dictionary import Dictionary

_J = _protos.jobs
_MEASURES = {
    "count": _J.GetCoactivationRequest.COUNT,
    "probability": _J.GetCoactivationRequest.PROBABILITY,
    "upstream": _J.GetCoactivationRequest.UPSTREAM,
    "phi": _J.GetCoactivationRequest.PHI,
    "pearson": _J.GetCoactivationRequest.PEARSON,
    "jaccard": _J.GetCoactivationRequest.JACCARD,
    "cosine": _J.GetCoactivationRequest.COSINE,
}
_TENSORS = [
    "values",
    "both",
    "partner",
    "partner_value",
    "partner_both",
    "row",
    "column",
    "entry",
    "mirrored",
]
# Latents whose partners one call asks for.
_LATENTS = 1024

Latents = Union[int, Sequence[int]]


class Coactivation:
    """Which latents were active together.

    The numbers stay on the server; each method asks for some. `measure`, of
    latents a and b with n_a and n_b active tokens of N, n_ab of them in common,
    and p = n / N:

    - "count": n_ab, and "probability": p_ab;
    - "upstream": (p_ab - p_a p_b) / sqrt(p_a (1 - p_a) p_b), as published,
      which is not symmetric; "phi": the symmetric one, with (1 - p_b) under the
      root;
    - "jaccard": n_ab / (n_a + n_b - n_ab);
    - "pearson" and "cosine" of the activations, zeros included.

    `exact` tells whether all pairs were counted. Where they were not, counts
    are estimated from `sample` tokens of each latent: exactly where neither was
    active more often, else with a standard error of sqrt(J (1 - J) / sample) of
    the Jaccard index J; "pearson" and "cosine" are then not to be had.
    """

    def __init__(self, client: Client, job: str) -> None:
        self._client = client
        self.job = job
        header, _ = self._fetch()
        self.tokens: int = header.tokens
        self.d_sae: int = header.d_sae
        self.sample: int = header.sample
        self.exact = self.sample == 0

    def _fetch(self, measure: str = "count", **wanted: Any) -> Any:
        connection = self._client._connection
        request = _J.GetCoactivationRequest(
            job=self.job,
            measure=code_of(measure, _MEASURES, "measure"),
            **wanted,
        )
        header, arrays = connection.stream(
            connection.jobs.GetCoactivation,
            request,
            "",
            lambda header: [getattr(header, name) for name in _TENSORS],
        )
        return header, dict(zip(_TENSORS, arrays))

    def between(
        self, a: Latents, b: Optional[Latents] = None, measure: str = "count"
    ) -> NDArray[np.float64]:
        """The measure of each of `a` with each of `b` (None: with each other),
        [len(a), len(b)]; an axis of a single integer is left out."""
        b = a if b is None else b
        _, arrays = self._fetch(
            measure, a=_listed(a, "a"), b=_listed(b, "b")
        )
        values: NDArray[np.float64] = arrays["values"]
        if _requests.is_int(b):
            values = values[:, 0]
        return values[0] if _requests.is_int(a) else values

    def partners(
        self,
        latents: Optional[Latents] = None,
        top: int = 10,
        measure: str = "count",
    ) -> pandas.DataFrame:
        """The `top` latents that go most with each of `latents` (None: of
        all): latent, rank, partner, value, count (tokens in common). Only those
        that were active together; the lowest index first among equals."""
        import pandas

        asked = (
            list(range(self.d_sae))
            if latents is None
            else _listed(latents, "latents")
        )
        (top,) = _requests.unsigned([top], "top")
        top = min(top, max(self.d_sae - 1, 1))
        frames = []
        for begin in range(0, max(len(asked), 1), _LATENTS):
            some = asked[begin : begin + _LATENTS]
            _, arrays = self._fetch(measure, latents=some, top=top)
            there = np.nonzero(arrays["partner"] >= 0)
            frames.append(
                {
                    "latent": np.asarray(some, np.int64)[there[0]],
                    "rank": there[1],
                    "partner": arrays["partner"][there],
                    "value": arrays["partner_value"][there],
                    "count": arrays["partner_both"][there],
                }
            )
        return pandas.DataFrame(
            {
                name: np.concatenate([frame[name] for frame in frames])
                for name in frames[0]
            }
        )

    def matrix(
        self,
        measure: str = "count",
        min_count: int = 1,
        top: Optional[int] = None,
    ) -> coo_matrix:
        """The whole matrix, [d_sae, d_sae], of the pairs with at least
        `min_count` tokens in common: entry (a, b) is the measure of a and b.

        With `top` only of each latent's `top` best partners, of which its row
        has the entries; that is what a job that sampled tokens has.
        """
        shape = (self.d_sae, self.d_sae)
        if top is not None:
            best = self.partners(None, top, measure)
            best = best[best["count"] >= min_count]
            places = (best["latent"].to_numpy(), best["partner"].to_numpy())
            return coo_matrix((best["value"].to_numpy(), places), shape=shape)
        rows: List[NDArray[np.int32]] = []
        columns: List[NDArray[np.int32]] = []
        values: List[NDArray[np.float64]] = []
        first = 0
        while first >= 0:
            header, page = self._fetch(
                measure, matrix=True, first=first, min_count=min_count
            )
            first = header.next
            mirror = page["row"] != page["column"]
            other = page["mirrored"] if measure == "upstream" else page["entry"]
            rows += [page["row"], page["column"][mirror]]
            columns += [page["column"], page["row"][mirror]]
            values += [page["entry"], other[mirror]]
        return coo_matrix(
            (
                np.concatenate(values),
                (np.concatenate(rows), np.concatenate(columns)),
            ),
            shape=shape,
        )

    def __repr__(self) -> str:
        how = "all pairs" if self.exact else f"{self.sample} tokens sampled"
        return (
            f"Coactivation of {self.job}: {self.d_sae:,} latents over "
            f"{self.tokens:,} tokens, {how}"
        )


def _listed(latents: Latents, name: str) -> List[int]:
    several: Any = [latents] if _requests.is_int(latents) else latents
    return _requests.unsigned(list(several), name)


def submit(
    dictionary: Dictionary,
    rows: Union[Prompts, DatasetRows],
    positions: Positions,
    sample: Optional[int],
    products: bool,
    prepend_bos: Optional[bool],
    chunk_tokens: Optional[int],
    options: Dict[str, Any],
) -> Job:
    """See Dictionary.coactivation."""
    request = _J.CoactivationRequest(
        dictionary=dictionary.name,
        sample=sample,
        counts_alone=not products,
        chunk_tokens=chunk_tokens or 0,
        processing=_requests.processing_code(dictionary.processing),
        positions=_requests.positions_message(positions),
        options=_submit.options_message(**options),
    )
    if isinstance(rows, DatasetRows):
        request.rows.CopyFrom(rows.to_message())
    else:
        request.prompts.CopyFrom(_requests.prompts_message(rows, prepend_bos))
    return _submit.send(
        dictionary._client, "CountCoactivation", request, dictionary.info.model
    )
