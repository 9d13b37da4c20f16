"""The `cupola` command.

Exit codes: 0 done; 1 any other failure; 2 a wrong command line or request;
3 no such model, dictionary or hook point; 4 the server cannot be reached or is
not ready; 5 no answer in time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Dict,
    Iterator,
    List,
    NoReturn,
    Optional,
    Union,
)

import numpy as np
import typer
from rich.console import Console

from . import __version__, _terminal
from .client import DEFAULT_DEADLINE, Client, connect
from .errors import (
    CupolaError,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    Unavailable,
)

_NOT_READY = 4

app = typer.Typer(
    help="Asks a Cupola server what happens inside a language model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
importers = typer.Typer(
    help="Turns a model file into a folder that a server can load.",
    no_args_is_help=True,
)
app.add_typer(importers, name="import")


@dataclasses.dataclass
class Session:
    """The options that come before the command."""

    server: str
    token: Optional[str]
    deadline: float
    tls: bool


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


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cupola {__version__}")
        raise typer.Exit()


@app.callback()
def _session(
    context: typer.Context,
    server: Annotated[
        str, typer.Option(envvar="CUPOLA_SERVER", help="HOST:PORT.")
    ] = "localhost:7070",
    token: Annotated[
        Optional[str],
        typer.Option(envvar="CUPOLA_TOKEN", help="Presented to the server."),
    ] = None,
    deadline: Annotated[
        float, typer.Option(min=0.001, help="Seconds to wait for an answer.")
    ] = DEFAULT_DEADLINE,
    tls: Annotated[bool, typer.Option(help="Encrypt.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    context.obj = Session(server, token, deadline, tls)


@app.command()
def models(
    context: typer.Context, server: Server = None, as_json: Json = False
) -> None:
    """List the server's models."""
    with _client(context, server) as client:
        entries = client.models()
    if as_json:
        _terminal.print_json([dataclasses.asdict(entry) for entry in entries])
    else:
        _terminal.show_models(entries)


@app.command()
def dictionaries(
    context: typer.Context, server: Server = None, as_json: Json = False
) -> None:
    """List the server's dictionaries."""
    with _client(context, server) as client:
        entries = client.dictionaries()
    if as_json:
        _terminal.print_json([dataclasses.asdict(entry) for entry in entries])
    else:
        _terminal.show_dictionaries(entries)


@app.command()
def features(
    context: typer.Context,
    dictionary: Annotated[str, typer.Argument(help="Its name.")],
    text: TextArgument,
    top: Annotated[
        Optional[int],
        typer.Option(
            min=1, help="Latents per token; default: 5, with --json all."
        ),
    ] = None,
    positions: PositionsOption = None,
    latents: Annotated[
        Optional[str], typer.Option(help="Only these, e.g. 50,1203.")
    ] = None,
    min_activation: Annotated[
        float, typer.Option(help="Only activations above this.")
    ] = 0.0,
    processing: ProcessingOption = None,
    bos: BosOption = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show which latents of DICTIONARY fire on each token of TEXT."""
    with _client(context, server) as client:
        answer = client.dictionary(dictionary, processing).features(
            _read(text),
            positions=_numbers(positions, "--positions"),
            latents=_numbers(latents, "--latents"),
            min_activation=min_activation,
            prepend_bos=bos,
        )
        if as_json:
            _terminal.print_json(_terminal.features_json(answer, top))
        else:
            _terminal.show_features(answer, top or 5)


@app.command()
def ablate(
    context: typer.Context,
    dictionary: Annotated[str, typer.Argument(help="Its name.")],
    text: TextArgument,
    position: Annotated[
        int, typer.Option(help="Where to ablate and read.")
    ] = -2,
    latents: Annotated[
        Optional[str],
        typer.Option(help="Only these, e.g. 50,1203; default: all active."),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="subtract or reconstruct.")
    ] = "subtract",
    answer: Annotated[
        Optional[str],
        typer.Option(help="Its log-probability; default: the next token's."),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="Latents to show, largest effect first.")
    ] = 10,
    processing: ProcessingOption = None,
    bos: BosOption = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show what TEXT loses when latents of DICTIONARY are taken away."""
    with _client(context, server) as client:
        found = client.dictionary(dictionary, processing).ablate(
            _read(text),
            _numbers(latents, "--latents"),
            position,
            mode,
            answer,
            prepend_bos=bos,
        )
    if as_json:
        _terminal.print_json(_terminal.ablation_json(found))
    else:
        _terminal.show_ablation(found, top)


@app.command()
def activations(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Its name.")],
    text: TextArgument,
    hook: Annotated[
        List[str],
        typer.Option(help="A hook point; may be given several times."),
    ],
    positions: PositionsOption = None,
    processing: ProcessingOption = "raw",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16.")
    ] = "float32",
    out: Annotated[
        Optional[Path],
        typer.Option(help="Write the arrays to this .npz file."),
    ] = None,
    bos: BosOption = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show MODEL's activations at hook points on TEXT."""
    with _client(context, server) as client:
        handle = client.model(model, processing)
        answer = handle.activations(
            _read(text),
            hook,
            positions=_numbers(positions, "--positions"),
            dtype=dtype,
            prepend_bos=bos,
        )
        (tokens,) = handle.str_tokens(answer.token_ids)
    if as_json:
        _terminal.print_json(_terminal.activations_json(answer))
    else:
        _terminal.show_activations(answer, tokens)
    if out is not None:
        arrays: Dict[str, Any] = {
            "positions": answer.positions[0],
            "token_ids": np.array(answer.token_ids[0]),
            **{name: answer[name][0] for name in answer},
        }
        with open(out, "wb") as file:
            np.savez(file, **arrays)
        print(f"wrote {out}", file=sys.stderr)


@app.command()
def attribute(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Its name.")],
    text: TextArgument,
    token: Annotated[
        str, typer.Option(help="The token to explain: its text, or its id.")
    ],
    instead_of: Annotated[
        Optional[str],
        typer.Option(help="Explain the difference to this token's logit."),
    ] = None,
    position: Annotated[
        int, typer.Option(help="The token index that predicts.")
    ] = -1,
    level: Annotated[
        str, typer.Option(help="layers, heads or neurons.")
    ] = "layers",
    top: Annotated[
        int, typer.Option(min=1, help="Components, the strongest first.")
    ] = 10,
    processing: ProcessingOption = "raw",
    bos: BosOption = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show which components of MODEL speak for a next token of TEXT."""
    with _client(context, server) as client:
        answer = client.model(model, processing).attribute(
            _read(text),
            _token(token),
            None if instead_of is None else _token(instead_of),
            level=level,
            positions=[position],
            prepend_bos=bos,
        )
    if as_json:
        _terminal.print_json(_terminal.attribution_json(answer))
    else:
        _terminal.show_attribution(answer, top)


@app.command()
def tokenize(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Its name.")],
    text: TextArgument,
    bos: BosOption = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show the tokens that MODEL makes of TEXT."""
    with _client(context, server) as client:
        handle = client.model(model)
        (ids,) = handle.tokenize(_read(text), prepend_bos=bos)
        (tokens,) = handle.str_tokens([ids]) if ids else ([],)
    if as_json:
        _terminal.print_json({"token_ids": ids, "tokens": tokens})
    else:
        _terminal.show_tokens(ids, tokens)


@app.command()
def status(
    context: typer.Context, server: Server = None, as_json: Json = False
) -> None:
    """Show whether the server is ready, and its cache's statistics."""
    with _client(context, server) as client:
        found = client.status()
    if as_json:
        _terminal.print_json(dataclasses.asdict(found))
    else:
        _terminal.show_status(found)
    if not found.serving:
        raise typer.Exit(_NOT_READY)


@importers.command()
def gguf(
    gguf_file: Annotated[Path, typer.Argument(help="A Llama model.")],
    out_folder: Annotated[Path, typer.Argument(help="Is made if missing.")],
) -> None:
    """Write a GGUF file as a Hugging Face folder in float32."""
    from rich.progress import Progress

    from .importers.gguf import ImportFailed, import_gguf

    progress = Progress(console=Console(stderr=True), transient=True)
    bar = progress.add_task("dequantizing", total=None)

    def advance(done: int, total: int) -> None:
        progress.start()  # not before there is something to show
        progress.update(bar, completed=done, total=total)

    try:
        import_gguf(gguf_file, out_folder, advance)
    except (ImportFailed, OSError) as error:
        _fail(str(error), 1)
    finally:
        if progress.live.is_started:
            progress.stop()
    print(f"wrote {out_folder}")


@contextlib.contextmanager
def _client(context: typer.Context, server: Optional[str]) -> Iterator[Client]:
    """A client of the chosen server; its errors end the command in one line."""
    session: Session = context.obj
    try:
        with connect(
            server or session.server,
            token=session.token,
            deadline=session.deadline,
            tls=session.tls,
        ) as client:
            yield client
    except CupolaError as error:
        message = " ".join(error.message.split())
        if error.retry_after:
            message += f" (room again in about {error.retry_after:.3g} s)"
        _fail(message, _exit_code(error))


def _exit_code(error: CupolaError) -> int:
    for kind, code in (
        (InvalidArgument, 2),
        (NotFound, 3),
        (Unavailable, _NOT_READY),
        (DeadlineExceeded, 5),
    ):
        if isinstance(error, kind):
            return code
    return 1


def _fail(message: str, code: int) -> NoReturn:
    print(f"cupola: {message}", file=sys.stderr)
    raise typer.Exit(code)


def _read(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _token(value: str) -> Union[int, str]:
    """An id where it looks like one, else a text."""
    return int(value) if value.isascii() and value.isdigit() else value


def _numbers(value: Optional[str], option: str) -> Optional[List[int]]:
    if value is None:
        return None
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        _fail(f"{option}: expected integers such as 1,3,-1, got {value!r}", 2)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
