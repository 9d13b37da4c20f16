"""One channel to one server: deadlines, metadata, retries, errors."""

from __future__ import annotations

import contextvars
import hashlib
import pathlib
import time
import urllib.parse
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple, Union

import grpc

from . import _protos, _tensors
from .errors import (
    CupolaError,
    InvalidArgument,
    Unavailable,
    from_rpc_error,
)
from .results import Estimate

DEFAULT_PORT = 7070
RECEIVE_LIMIT = 32 << 20

_Path = Union[str, pathlib.Path]

# Whether and how to encrypt: no, with the system's certificate authorities,
# with those of a PEM file, with (authorities, own certificate, own key) as PEM
# files (authorities None: the system's), or as the given credentials say.
Tls = Union[
    None,
    bool,
    _Path,
    Tuple[Optional[_Path], _Path, _Path],
    grpc.ChannelCredentials,
]

# Operations are pure functions or idempotent (but for one: see unary), so they
# are sent again when a server cannot be reached: after so many seconds each. Errors of other kinds
# would only repeat. gRPC's own retries are off: with them a streamed call that
# a server refuses while it shuts down may never end (seen with grpcio 1.85).
_RETRY_AFTER = (0.1, 0.25, 0.6)


class Connection:
    """Sends requests; safe to use from several threads."""

    def __init__(
        self,
        target: str,
        token: Optional[str],
        deadline: Optional[float],
        tls: Tls,
    ) -> None:
        if deadline is not None and not deadline > 0:
            raise ValueError(f"deadline: expected seconds > 0, got {deadline}")
        if token and not (token.isascii() and token.isprintable()):
            # gRPC would quote it in its complaint.
            raise ValueError("token: expected printable ASCII")
        self.target = _with_port(target)
        self.deadline = deadline
        self._authorization: List[Tuple[str, str]] = (
            [("authorization", f"Bearer {token}")] if token else []
        )
        options: List[Tuple[str, Any]] = [
            ("grpc.max_receive_message_length", RECEIVE_LIMIT),
            ("grpc.max_send_message_length", -1),  # the server sets the limit
            ("grpc.enable_retries", 0),
            # A notebook's connection idles behind a NAT that forgets it, and
            # its requests may compute for minutes without a byte.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        if _is_loopback(self.target):
            # A proxy of the environment is not on the way to this machine.
            options.append(("grpc.enable_http_proxy", 0))
        credentials = _credentials(tls)
        self._channel = (
            grpc.insecure_channel(self.target, options)
            if credentials is None
            else grpc.secure_channel(self.target, credentials, options)
        )
        stubs: Any = _protos  # generated without types
        self.catalog = stubs.catalog_grpc.CatalogStub(self._channel)
        self.analysis = stubs.analysis_grpc.AnalysisStub(self._channel)
        self.admin = stubs.admin_grpc.AdminStub(self._channel)
        self.jobs = stubs.jobs_grpc.JobsStub(self._channel)
        self.datasets = stubs.datasets_grpc.DatasetsStub(self._channel)
        self.stores = stubs.stores_grpc.StoresStub(self._channel)
        # gRPC's health protocol. Its request for the whole server is an empty
        # message, and its answer one enum field, so it needs no stubs.
        self._health = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda request: b"",
            response_deserializer=lambda data: data == b"\x08\x01",
        )

    def close(self) -> None:
        self._channel.close()

    def unary(
        self, method: Any, request: Any, model: str = "", again: bool = True
    ) -> Any:
        """Not `again`: asked once, since a server that went away may have
        begun with it, and twice would be two."""
        return self._ask(
            method.future,
            request,
            model,
            lambda call: call.result(),
            _RETRY_AFTER if again else (),
        )

    def stream(
        self,
        method: Any,
        request: Any,
        model: str,
        tensors: Callable[[Any], Sequence[_protos.tensor.Tensor]],
    ) -> Tuple[Any, List[Any]]:
        """The header and the arrays of a streamed answer (see receive)."""

        def listed(header: Any) -> Sequence[_protos.tensor.Tensor]:
            _stop_at_estimate(header)  # which comes without tensors
            return tensors(header)

        answer: Tuple[Any, List[Any]] = self._ask(
            method, request, model, lambda call: _tensors.receive(call, listed)
        )
        return answer

    def messages(
        self, method: Any, request: Any, model: str = ""
    ) -> Iterator[Any]:
        """A streamed answer's messages as they come. Closing the iterator
        cancels the call. Sent again only while nothing has come."""
        first, call = self._ask(method, request, model, _first_message)
        try:
            while first is not None:
                _stop_at_estimate(first)
                yield first
                first = self._finish(call, lambda c: next(c, None), False)
        finally:
            call.cancel()

    def upload(self, method: Any, messages: Iterator[Any]) -> Any:
        """The answer to a stream of messages, which is sent once and may take
        as long as it takes. What the iterator raises ends the call."""
        broken: List[Exception] = []

        def guarded() -> Iterator[Any]:
            try:
                yield from messages
            except Exception as error:  # not GeneratorExit: the call has ended
                broken.append(error)
                raise

        call = self._start(method.future, guarded(), "", None, 0)
        try:
            return self._finish(call, lambda call: call.result())
        except CupolaError:
            if broken:
                raise broken[0] from None
            raise

    def serving(self) -> bool:
        """Whether the server calls itself healthy and ready."""
        return bool(
            self._ask(self._health.future, None, "", lambda call: call.result())
        )

    def _ask(
        self,
        method: Any,
        request: Any,
        model: str,
        wait: Callable[[Any], Any],
        pauses: Sequence[float] = _RETRY_AFTER,
    ) -> Any:
        """What `wait` makes of the call, within one deadline for all tries."""
        end = None if self.deadline is None else time.monotonic() + self.deadline
        for attempt, pause in enumerate((*pauses, None)):
            left = None if end is None else max(end - time.monotonic(), 0.0)
            call = self._start(method, request, model, left, attempt)
            try:
                return self._finish(call, wait, wait is not _first_message)
            except Unavailable:
                if pause is None or (end and time.monotonic() + pause > end):
                    raise
                time.sleep(pause)

    def _start(
        self,
        method: Any,
        request: Any,
        model: str,
        timeout: Optional[float],
        attempt: int,
    ) -> Any:
        metadata = list(self._authorization)
        if model:
            # For proxies that route by consistent hash: to the server that
            # holds the model, or that has answered this very request before.
            metadata.append(("cupola-model", urllib.parse.quote(model)))
            metadata.append(("cupola-key", _request_key(request)))
        if _estimating.get():
            # With the key of the request itself, so that the server is asked
            # that would get it.
            _make_dry(request)
        if attempt:
            # The server that was asked first may be draining: try another one.
            metadata.append(("cupola-attempt", str(attempt)))
        try:
            return method(request, timeout=timeout, metadata=metadata)
        except ValueError as error:  # what a closed channel raises
            raise CupolaError(f"{self.target}: {error}", "CANCELLED") from None

    def _finish(
        self, call: Any, wait: Callable[[Any], Any], whole: bool = True
    ) -> Any:
        """What `wait` makes of the call; not `whole`: and more is to come."""
        try:
            answer = wait(call)
        except BaseException as error:
            # An interrupted or malformed answer: tell the server to stop.
            # Nothing happens to a call that has ended.
            call.cancel()
            if isinstance(error, grpc.FutureCancelledError):
                raise from_rpc_error(call, self.target) from None
            if isinstance(error, grpc.RpcError):
                raise from_rpc_error(error, self.target) from None
            raise
        if whole:
            call.cancel()
        return answer


# Whether requests of this thread (or task) are only to be estimated.
_estimating: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "estimating", default=False
)


class _Estimated(BaseException):
    """Ends the call whose request has been estimated."""

    def __init__(self, estimate: Estimate) -> None:
        self.estimate = estimate


def estimate(call: Callable[[], Any]) -> Estimate:
    """What the first analysis request that `call` makes would take; what `call`
    does after it is not done."""
    token = _estimating.set(True)
    try:
        call()
    except _Estimated as estimated:
        return estimated.estimate
    finally:
        _estimating.reset(token)
    raise InvalidArgument("the call asks for nothing that can be estimated")


# What may be asked on the way to an estimate: it changes nothing.
_LOOKS = {"TokenizeRequest", "DescribeRequest", "ListRequest"}


def _make_dry(request: Any) -> None:
    if hasattr(request, "dry_run"):
        request.dry_run = True
    elif type(request).__name__ not in _LOOKS:
        raise InvalidArgument("the call asks for nothing that can be estimated")


def _stop_at_estimate(header: Any) -> None:
    # A text's is in its end.
    provenance = getattr(
        getattr(header, "end", header), "provenance", None
    )
    if isinstance(
        provenance, _protos.common.Provenance
    ) and provenance.HasField("estimate"):
        raise _Estimated(Estimate.from_message(provenance.estimate))


def _first_message(call: Any) -> Tuple[Any, Any]:
    return next(call, None), call


def _request_key(request: Any) -> str:
    digest = hashlib.sha256(type(request).__name__.encode())
    digest.update(request.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _with_port(target: str) -> str:
    if not target:
        raise ValueError("target: expected HOST:PORT, got an empty string")
    if ":" in target:  # HOST:PORT, [IPv6]:PORT, or a scheme such as dns:///
        return target
    return f"{target}:{DEFAULT_PORT}"


def _is_loopback(target: str) -> bool:
    host = target.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def _credentials(tls: Tls) -> Optional[grpc.ChannelCredentials]:
    if tls is None or tls is False:
        return None
    if tls is True:
        return grpc.ssl_channel_credentials()
    if isinstance(tls, (str, pathlib.Path)):
        return grpc.ssl_channel_credentials(pathlib.Path(tls).read_bytes())
    if isinstance(tls, tuple):
        if len(tls) != 3:
            raise ValueError(
                f"tls: expected (authorities, certificate, key), got {len(tls)}"
                " items"
            )
        roots, chain, key = (
            None if path is None else pathlib.Path(path).read_bytes()
            for path in tls
        )
        return grpc.ssl_channel_credentials(roots, key, chain)
    return tls
