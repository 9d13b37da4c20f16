"""Jacobians summed over a corpus: a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Sequence, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _protos, _requests, _submit
from ._requests import Positions, Prompts
from .datasets import DatasetRows
from .errors import InvalidArgument
from .jacobian import add_rows, bridge_request, code_of
from .jobs import Job

if TYPE_CHECKING:
    import pandas

    from .client import Client
    from .pair import Pair

_J = _protos.jobs
_STATISTICS = {
    "mean": _J.JacobianTotalsRequest.MEAN,
    "sum": _J.JacobianTotalsRequest.SUM,
    "max": _J.JacobianTotalsRequest.MAX,
    "count": _J.JacobianTotalsRequest.COUNT,
}
_DIVISORS = {
    "tokens": _J.JacobianTotalsRequest.ALL_TOKENS,
    "active": _J.JacobianTotalsRequest.OUTPUT_ACTIVE,
}
_TENSORS = [
    "above",
    "top_out",
    "top_in",
    "top_values",
    "rows",
    "columns",
    "active",
    "histogram",
]

Latents = Union[int, Sequence[int]]


class JacobianTotals:
    """Sum, maximum and count of |J| over tokens, for each pair of latents.

    The numbers stay on the server; each method asks for some. `statistic` is
    "mean", "sum", "max" or "count" (tokens with |J| > 0); a mean divides by all
    `"tokens"` or by those at which the output latent was `"active"`.
    """

    def __init__(self, client: Client, job: str) -> None:
        self._client = client
        self.job = job
        header, _ = self._fetch()
        self.tokens: int = header.tokens
        self.shape = (header.d_out, header.d_in)
        self.dtype = "float64" if header.float64 else "float32"
        self._histogram_end: float = header.histogram_end

    def _fetch(
        self, statistic: str = "mean", per: str = "tokens", **wanted: Any
    ) -> Any:
        connection = self._client._connection
        request = _J.JacobianTotalsRequest(
            job=self.job,
            statistic=code_of(statistic, _STATISTICS, "statistic"),
            divisor=code_of(per, _DIVISORS, "per"),
            **wanted,
        )
        header, arrays = connection.stream(
            connection.jobs.GetJacobianTotals,
            request,
            "",
            lambda header: [getattr(header, name) for name in _TENSORS],
        )
        return header, dict(zip(_TENSORS, arrays))

    def count_above(
        self,
        thresholds: ArrayLike,
        statistic: str = "mean",
        per: str = "tokens",
    ) -> NDArray[np.int64]:
        """How many of the d_out x d_in pairs are above each threshold."""
        values = np.atleast_1d(np.asarray(thresholds, np.float64))
        _, arrays = self._fetch(statistic, per, thresholds=values.tolist())
        above: NDArray[np.int64] = arrays["above"]
        return above

    def share_above(
        self,
        thresholds: ArrayLike = 0.0,
        statistic: str = "mean",
        per: str = "tokens",
    ) -> NDArray[np.float64]:
        """The same as shares of all pairs."""
        above = self.count_above(thresholds, statistic, per)
        return above / (self.shape[0] * self.shape[1])

    def top(
        self, n: int = 20, statistic: str = "mean", per: str = "tokens"
    ) -> pandas.DataFrame:
        """The largest, descending: out_latent, in_latent, value."""
        import pandas

        _, arrays = self._fetch(statistic, per, top=n)
        return pandas.DataFrame(
            {
                "out_latent": arrays["top_out"],
                "in_latent": arrays["top_in"],
                "value": arrays["top_values"],
            }
        )

    def rows(
        self, out_latents: Latents, statistic: str = "mean", per: str = "tokens"
    ) -> NDArray[np.float64]:
        """float64 [len(out_latents), d_in]; of one latent [d_in]."""
        return self._lines("rows", out_latents, statistic, per)

    def columns(
        self, in_latents: Latents, statistic: str = "mean", per: str = "tokens"
    ) -> NDArray[np.float64]:
        """float64 [len(in_latents), d_out]; of one latent [d_out]."""
        return self._lines("columns", in_latents, statistic, per)

    def _lines(
        self, field: str, latents: Latents, statistic: str, per: str
    ) -> NDArray[np.float64]:
        one = _requests.is_int(latents)
        several = [latents] if one else list(latents)  # type: ignore[arg-type]
        _, arrays = self._fetch(
            statistic, per, **{field: _requests.unsigned(several, field)}
        )
        lines: NDArray[np.float64] = arrays[field]
        return lines[0] if one else lines

    def active(self) -> NDArray[np.int64]:
        """At how many tokens each output latent was active, [d_out]."""
        counts: NDArray[np.int64] = self._fetch(active=True)[1]["active"]
        return counts

    def histogram(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """All |J| > 0: counts [bins + 1] and edges [bins + 2], as
        numpy.histogram has them; the last bin is open."""
        counts = self._fetch(histogram=True)[1]["histogram"]
        edges = np.linspace(0.0, self._histogram_end, len(counts))
        return counts, np.append(edges, np.inf)

    def __repr__(self) -> str:
        return (
            f"JacobianTotals of {self.job}: {self.shape[0]} x {self.shape[1]} "
            f"pairs over {self.tokens:,} tokens, {self.dtype}"
        )


def accumulate(
    pair: Pair,
    prompts: Union[Prompts, DatasetRows],
    positions: Positions,
    mlp_input: str,
    block: str,
    min_abs: float,
    mask: str,
    dtype: str,
    bins: int,
    histogram_end: float,
    prepend_bos: Optional[bool],
    chunk_tokens: Optional[int],
    options: Any,
) -> Job:
    """See Pair.accumulate."""
    if dtype not in ("float32", "float64"):
        raise InvalidArgument(
            f"dtype: expected 'float32' or 'float64', got {dtype!r}"
        )
    question = bridge_request(pair, mlp_input, block, min_abs, None, mask)
    request = _J.AccumulateJacobianRequest(
        float64=dtype == "float64",
        histogram_bins=bins,
        histogram_end=histogram_end,
        chunk_tokens=chunk_tokens or 0,
        options=_submit.options_message(**options),
    )
    if isinstance(prompts, DatasetRows):
        request.rows.CopyFrom(prompts.to_message())
        where = _requests.positions_message(positions)
        if where is not None:
            question.positions.CopyFrom(where)
    else:
        add_rows(pair.input, question, prompts, positions, None, prepend_bos)
    request.jacobian.CopyFrom(question)
    return _submit.send(
        pair.input._client,
        "AccumulateJacobian",
        request,
        pair.input.info.model,
    )
