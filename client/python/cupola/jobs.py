"""Jobs: long computations that survive the server's end."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _progress, _protos, _requests, _shards
from ._requests import Positions, Prompts
from .datasets import DatasetRows
from .errors import (
    CupolaError,
    DeadlineExceeded,
    InvalidArgument,
    Unavailable,
)
from .jacobian import add_rows, bridge_request, code_of

if TYPE_CHECKING:
    import pandas

    from .client import Client
    from .dictionary import Pair

_J = _protos.jobs
_STATES = {
    _J.Job.QUEUED: "queued",
    _J.Job.RUNNING: "running",
    _J.Job.DONE: "done",
    _J.Job.FAILED: "failed",
    _J.Job.CANCELLED: "cancelled",
}
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
# A server that is being started again: how long `watch` looks for it, and how
# often.
_AWAY, _LOOK = 60.0, 1.0

Latents = Union[int, Sequence[int]]


@dataclasses.dataclass(frozen=True)
class JobProvenance:
    """What a job's result is of. Digests are hexadecimal."""

    model: str
    model_digest: str
    dictionaries: Dict[str, str]  # name: digest
    dataset: Optional[str]  # None: the request's own prompts
    dataset_digest: Optional[str]  # of the documents
    rows_digest: Optional[str]  # of the rows of tokens
    parameters: Dict[str, Any]  # everything else

    @staticmethod
    def from_message(message: Any) -> JobProvenance:
        return JobProvenance(
            model=message.model,
            model_digest=message.model_digest.hex(),
            dictionaries={
                one.name: one.digest.hex() for one in message.dictionaries
            },
            dataset=message.dataset or None,
            dataset_digest=message.dataset_digest.hex() or None,
            rows_digest=message.rows_digest.hex() or None,
            parameters=json.loads(message.parameters or "{}"),
        )


@dataclasses.dataclass(frozen=True)
class JobInfo:
    """A job as it was when the server told of it."""

    id: str
    kind: str
    title: str
    state: str  # "queued", "running", "done", "failed" or "cancelled"
    chunks_done: int
    chunks: int
    chunks_saved: int  # in the last checkpoint
    tokens_done: int
    tokens: int
    seconds: float  # spent so far
    tokens_per_second: Optional[float]  # of late; None: not known
    seconds_left: Optional[float]  # an estimate; None: none
    error: str  # why it failed
    submitted: datetime.datetime
    name: str = ""  # the client's
    # (i, n): the i-th of n parts; chunks and tokens above are its own.
    shard: Tuple[int, int] = (0, 1)
    resumable: bool = False  # it failed or was cancelled, and may go on
    expires: Optional[datetime.datetime] = None  # None: never, or not yet known
    provenance: Optional[JobProvenance] = None

    @staticmethod
    def from_message(message: Any) -> JobInfo:
        return JobInfo(
            id=message.id,
            kind=message.kind,
            title=message.title,
            state=_STATES.get(message.state, "unknown"),
            chunks_done=message.chunks_done,
            chunks=message.chunks,
            chunks_saved=message.chunks_saved,
            tokens_done=message.tokens_done,
            tokens=message.tokens,
            seconds=message.seconds,
            tokens_per_second=message.tokens_per_second or None,
            seconds_left=(
                message.seconds_left if message.seconds_left >= 0 else None
            ),
            error=message.error,
            submitted=datetime.datetime.fromtimestamp(
                message.submitted_micros / 1e6, datetime.timezone.utc
            ),
            name=message.name,
            shard=(message.shard.index, message.shard.count or 1),
            resumable=message.resumable,
            expires=(
                datetime.datetime.fromtimestamp(
                    message.expires_micros / 1e6, datetime.timezone.utc
                )
                if message.expires_micros
                else None
            ),
            provenance=JobProvenance.from_message(message.provenance),
        )

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def __str__(self) -> str:
        share = self.tokens_done / self.tokens if self.tokens else 0.0
        line = (
            f"{self.id} {self.kind} {self.title}: {self.state}, "
            f"{self.tokens_done:,} of {self.tokens:,} tokens ({share:.0%})"
        )
        if self.tokens_per_second:
            line += f", {self.tokens_per_second:,.0f} tokens/s"
        if self.seconds_left:
            line += f", {self.seconds_left:,.0f} s left"
        return line + (f": {self.error}" if self.error else "")


class Job:
    """A handle of a job; from `Pair.accumulate`, `Client.jobs` or
    `Client.job`. `info` is what was last heard of it."""

    def __init__(self, client: Client, info: JobInfo) -> None:
        self._client = client
        self.info = info

    @property
    def id(self) -> str:
        return self.info.id

    def _ask(self, method: str) -> JobInfo:
        connection = self._client._connection
        message = connection.unary(
            getattr(connection.jobs, method), _J.JobId(id=self.id)
        )
        self.info = JobInfo.from_message(message)
        return self.info

    def refresh(self) -> JobInfo:
        return self._ask("Get")

    def cancel(self) -> JobInfo:
        """Ends the job; what it computed stays, and it can be resumed."""
        return self._ask("Cancel")

    def resume(self) -> JobInfo:
        """Goes on with a cancelled or failed job."""
        return self._ask("Resume")

    def delete(self) -> None:
        """Forgets the job, which must have ended, and its result."""
        connection = self._client._connection
        connection.unary(connection.jobs.Delete, _J.JobId(id=self.id))

    def watch(self, progress: Optional[bool] = None) -> Iterator[JobInfo]:
        """The job as it gets on, until it has ended. A server that goes away
        and comes back within a minute is found again. `progress`: with a bar
        in the terminal or the notebook; None: where there is one."""
        with _progress.bar(self, progress) as show:
            for info in self._watch():
                show(info)
                yield info

    def _watch(self) -> Iterator[JobInfo]:
        connection = self._client._connection
        lost = None
        while True:
            try:
                for message in connection.messages(
                    connection.jobs.Watch, _J.JobId(id=self.id)
                ):
                    lost = None
                    self.info = JobInfo.from_message(message)
                    yield self.info
                    if self.info.ended:
                        return
            except DeadlineExceeded:
                continue  # of the one call, not of the job
            except Unavailable:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > _AWAY:
                    raise
                time.sleep(_LOOK)

    def wait(self, progress: Optional[bool] = None) -> JobInfo:
        """Returns when the job is done. CupolaError where it failed or was
        cancelled. `progress` as in `watch`."""
        for _ in self.watch(progress):
            pass
        if self.info.state != "done":
            raise CupolaError(
                f"job {self.id} {self.info.state}: {self.info.error}"
                if self.info.error
                else f"job {self.id} was {self.info.state}",
                "FAILED_PRECONDITION",
            )
        return self.info

    def result(self) -> Any:
        """What a job that has ended computed: JacobianTotals or
        FeatureStatistics; waits for it first. Of a job that was cancelled or
        failed, what it got to."""
        if not self.info.ended and not self.refresh().ended:
            self.wait()
        if self.info.kind == "feature_statistics":
            from .feature_statistics import FeatureStatistics

            return FeatureStatistics(self._client, self.id)
        return JacobianTotals(self._client, self.id)

    def save_shard(self, path: Union[str, pathlib.Path]) -> None:
        """Writes the state of a job that is done, for `Client.merge_shards`."""
        _shards.save(self, pathlib.Path(path))

    def __repr__(self) -> str:
        return f"Job({self.info})"


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


def jobs(client: Client) -> List[Job]:
    connection = client._connection
    answer = connection.unary(connection.jobs.List, _J.ListJobsRequest())
    return [Job(client, JobInfo.from_message(job)) for job in answer.jobs]


def job(client: Client, id: str) -> Job:
    connection = client._connection
    message = connection.unary(connection.jobs.Get, _J.JobId(id=id))
    return Job(client, JobInfo.from_message(message))


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
    from . import _submit

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
