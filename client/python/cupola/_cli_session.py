"""What all commands of `cupola` share: their options, the client, the ways
out."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Callable,
    Iterator,
    List,
    NamedTuple,
    NoReturn,
    Optional,
    Union,
    get_type_hints,
)

import numpy as np
import typer
from numpy.typing import NDArray

from . import _terminal
from ._connection import Tls
from .client import Client, connect
from .errors import (
    CupolaError,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    Unavailable,
)

NOT_READY = 4


@dataclasses.dataclass
class Session:
    """The options that come before the command."""

    server: str
    token: Optional[str]
    deadline: float
    tls: Tls


Server = Annotated[
    Optional[str],
    typer.Option(help="HOST:PORT; default: $CUPOLA_SERVER or localhost:7070."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TextArgument = Annotated[str, typer.Argument(help="The text; - reads stdin.")]
PositionsOption = Annotated[
    Optional[str],
    typer.Option(help="Token indices, e.g. 1,3,-1; default: all."),
]
ProcessingOption = Annotated[Optional[str], typer.Option(help="raw or folded.")]
BosOption = Annotated[
    Optional[bool],
    typer.Option("--bos/--no-bos", help="Put BOS first; default: as usual."),
]



class Shown(NamedTuple):
    """What a command prints: one of the two is called."""

    show: Callable[[], None]
    json: Callable[[], Any]
    exit_code: int = 0


def command(
    app: typer.Typer,
) -> Callable[[Callable[..., Shown]], Callable[..., None]]:
    """Makes a command of a function of a client and the command's own
    arguments. It gets the options --server and --json as well; errors of the
    client end it in one line."""

    def decorate(function: Callable[..., Shown]) -> Callable[..., None]:
        def run(
            context: typer.Context,
            server: Server = None,
            as_json: Json = False,
            **arguments: Any,
        ) -> None:
            with client_of(context, server) as client:
                shown = function(client, **arguments)
                if as_json:
                    _terminal.print_json(shown.json())
                else:
                    shown.show()
            if shown.exit_code:
                raise typer.Exit(shown.exit_code)

        ours, theirs = (_parameters(f) for f in (run, function))
        context, server, as_json, _ = ours
        parameters = [context, *theirs[1:], server, as_json]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        app.command()(run)
        return run

    return decorate


def _parameters(function: Callable[..., Any]) -> List[inspect.Parameter]:
    """With their annotations evaluated, as typer wants them."""
    hints = get_type_hints(function, include_extras=True)
    return [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in inspect.signature(function).parameters.values()
    ]


@contextlib.contextmanager
def client_of(context: typer.Context, server: Optional[str]) -> Iterator[Client]:
    """A client of the chosen server; its errors end the command in one line."""
    session: Session = context.obj
    with exits(), connect(
        server or session.server,
        token=session.token,
        deadline=session.deadline,
        tls=session.tls,
    ) as client:
        yield client


@contextlib.contextmanager
def exits() -> Iterator[None]:
    """Errors of the client end the command in one line, with their code."""
    try:
        yield
    except CupolaError as error:
        message = " ".join(error.message.split())
        if error.retry_after:
            message += f" (room again in about {error.retry_after:.3g} s)"
        fail(message, _exit_code(error))


def _exit_code(error: CupolaError) -> int:
    for kind, code in (
        (InvalidArgument, 2),
        (NotFound, 3),
        (Unavailable, NOT_READY),
        (DeadlineExceeded, 5),
    ):
        if isinstance(error, kind):
            return code
    return 1


def fail(message: str, code: int) -> NoReturn:
    print(f"cupola: {message}", file=sys.stderr)
    raise typer.Exit(code)


def read(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def token_of(value: str) -> Union[int, str]:
    """An id where it looks like one, else a text."""
    return int(value) if value.isascii() and value.isdigit() else value


def array(path: Path, option: str) -> NDArray[Any]:
    """A .npy file's array."""
    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        fail(f"{option}: {error}", 2)


def numbers(value: Optional[str], option: str) -> Optional[List[int]]:
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        fail(f"{option}: expected integers such as 1,3,-1, got {value!r}", 2)
