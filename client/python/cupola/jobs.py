"""Jobs: long computations that survive the server's end."""

from __future__ import annotations

import pathlib
import time
from typing import TYPE_CHECKING, Any, Iterator, List, Optional, Union

from . import _progress, _protos, _shards
from .errors import CupolaError, DeadlineExceeded, Unavailable
from .job_info import JobInfo

if TYPE_CHECKING:
    from .client import Client

_J = _protos.jobs
# A server that is being started again: how long `watch` looks for it, and how
# often.
_AWAY, _LOOK = 60.0, 1.0


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
        """What a job that has ended computed: FeatureStatistics,
        FeatureMatching, Coactivation, DirectionStatistics, ActivationStore or
        JacobianTotals, as its kind is; waits for it first. Of a job that was
        cancelled or failed, what it got to."""
        if not self.info.ended and not self.refresh().ended:
            self.wait()
        if self.info.kind == "feature_statistics":
            from .feature_statistics import FeatureStatistics

            return FeatureStatistics(self._client, self.id)
        if self.info.kind == "match_features":
            from .matching import FeatureMatching

            return FeatureMatching(self._client, self.id)
        if self.info.kind == "coactivation":
            from .coactivation import Coactivation

            return Coactivation(self._client, self.id)
        if self.info.kind == "store_activations":
            from .stores import store

            provenance = self.info.provenance
            assert provenance is not None and provenance.store is not None
            return store(self._client, provenance.store)
        if self.info.kind == "direction_statistics":
            from .direction_statistics import DirectionStatistics

            return DirectionStatistics(self._client, self.id)
        from .jacobian_totals import JacobianTotals

        return JacobianTotals(self._client, self.id)

    def save_shard(self, path: Union[str, pathlib.Path]) -> None:
        """Writes the state of a job that is done, for `Client.merge_shards`."""
        _shards.save(self, pathlib.Path(path))

    def __repr__(self) -> str:
        return f"Job({self.info})"


def jobs(client: Client) -> List[Job]:
    connection = client._connection
    answer = connection.unary(connection.jobs.List, _J.ListJobsRequest())
    return [Job(client, JobInfo.from_message(job)) for job in answer.jobs]


def job(client: Client, id: str) -> Job:
    connection = client._connection
    message = connection.unary(connection.jobs.Get, _J.JobId(id=id))
    return Job(client, JobInfo.from_message(message))
