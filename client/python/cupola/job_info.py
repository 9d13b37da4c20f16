"""What the server tells of a job."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any, Dict, Optional, Tuple

from . import _protos

_J = _protos.jobs
_STATES = {
    _J.Job.QUEUED: "queued",
    _J.Job.RUNNING: "running",
    _J.Job.DONE: "done",
    _J.Job.FAILED: "failed",
    _J.Job.CANCELLED: "cancelled",
}


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
    store: Optional[str] = None  # key of the store that the job writes

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
            store=message.store.hex() or None,
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
    # The token that submitted it, which alone may change it, beside admins.
    owner: str = ""

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
            owner=message.owner,
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
