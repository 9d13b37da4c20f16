"""What all kinds of jobs have in common when they are submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._submit_options import options_message
from .job_info import JobInfo
from .jobs import Job

if TYPE_CHECKING:
    from .client import Client

__all__ = ["options_message", "send"]


def send(client: Client, method: Any, request: Any, model: str) -> Job:
    """Submits: again where the server could not be reached, since the request
    id makes one job of all."""
    connection = client._connection
    if isinstance(method, str):  # of the jobs' own
        method = getattr(connection.jobs, method)
    message = connection.unary(method, request, model)
    return Job(client, JobInfo.from_message(message))
