"""What a server refuses, as Python exceptions: one class per status code.

Those with a natural Python kin inherit from it too, so that ``except
ValueError`` catches an invalid argument.
"""

from __future__ import annotations

from typing import Dict, Optional, Type

import grpc


class CupolaError(Exception):
    """An operation failed. `code` is the gRPC status code's name.

    `retry_after` is the delay in seconds after which the server expects to
    have room, where it said so.
    """

    code: str = "UNKNOWN"

    def __init__(
        self,
        message: str,
        code: Optional[str] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class InvalidArgument(CupolaError, ValueError):
    """The request is wrong; the message names the field and the value."""

    code = "INVALID_ARGUMENT"


class NotFound(CupolaError, LookupError):
    """No such model, dictionary or hook point."""

    code = "NOT_FOUND"


class FailedPrecondition(CupolaError):
    """The model or dictionary failed to load; says why."""

    code = "FAILED_PRECONDITION"


class AlreadyExists(CupolaError):
    """The name is taken: by a dataset, a job, or the like."""

    code = "ALREADY_EXISTS"


class ResourceExhausted(CupolaError):
    """Too large (both numbers are given), or the queue is full."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(CupolaError, ConnectionError):
    """The server cannot be reached or is shutting down; was retried."""

    code = "UNAVAILABLE"


class DeadlineExceeded(CupolaError, TimeoutError):
    """No answer within the client's deadline."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(CupolaError):
    code = "CANCELLED"


class Unauthenticated(CupolaError):
    """The server wants a token (``connect(..., token=)``)."""

    code = "UNAUTHENTICATED"


class PermissionDenied(CupolaError):
    """The token does not allow this operation."""

    code = "PERMISSION_DENIED"


class Unimplemented(CupolaError):
    """The server is older than this client and lacks the operation."""

    code = "UNIMPLEMENTED"


class DataLoss(CupolaError):
    """An answer did not arrive as its header announced it."""

    code = "DATA_LOSS"


class Internal(CupolaError):
    """A fault of the server's."""

    code = "INTERNAL"


_CLASSES: Dict[str, Type[CupolaError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        FailedPrecondition,
        AlreadyExists,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Unauthenticated,
        PermissionDenied,
        Unimplemented,
        DataLoss,
        Internal,
    )
}


def from_rpc_error(error: grpc.RpcError, target: str) -> CupolaError:
    """The exception for what gRPC raised while talking to `target`."""
    code = error.code().name
    message = error.details() or code
    if code == "UNAVAILABLE":
        message = f"no answer from {target}: {message}"
    elif code == "DEADLINE_EXCEEDED":
        message = f"no answer from {target} within the deadline: {message}"
    kind = _CLASSES.get(code)
    if kind is None:
        return CupolaError(message, code=code)
    return kind(message, retry_after=_retry_after(error))


def _retry_after(error: grpc.RpcError) -> Optional[float]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-retry-pushback-ms":
            try:
                return max(0.0, int(value) / 1000)
            except ValueError:
                return None
    return None
