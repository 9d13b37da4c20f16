"""The `cupola` command.

Exit codes: 0 done; 1 any other failure; 2 a wrong command line or request;
3 no such model, dictionary or hook point; 4 the server cannot be reached or is
not ready; 5 no answer in time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import re
import secrets
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.live import Live

from . import (
    __version__,
    _cli_catalog,
    _cli_datasets,
    _cli_export,
    _cli_import,
    _cli_jobs,
    _cli_pairs,
    _cli_questions,
    _terminal,
)
from ._cli_session import NOT_READY, Session, Shown, command, exits, fail
from ._connection import Tls
from .client import DEFAULT_DEADLINE, Client

HTTP_PORT = 7071

app = typer.Typer(
    help="Asks a Cupola server what happens inside a language model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(_cli_import.app, name="import")


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
    tls_ca: Annotated[
        Optional[Path],
        typer.Option(help="Who signs the server's certificate (PEM)."),
    ] = None,
    tls_cert: Annotated[
        Optional[Path], typer.Option(help="Your own certificate (PEM).")
    ] = None,
    tls_key: Annotated[
        Optional[Path], typer.Option(help="Its key (PEM).")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    if (tls_cert is None) != (tls_key is None):
        fail("--tls-cert and --tls-key are given together or not at all", 2)
    encryption: Tls = tls_ca or tls
    if tls_cert is not None and tls_key is not None:
        encryption = (tls_ca, tls_cert, tls_key)
    context.obj = Session(server, token, deadline, encryption)


@command(app)
def models(client: Client) -> Shown:
    """List the server's models."""
    entries = client.models()
    return Shown(
        lambda: _terminal.show_models(entries),
        lambda: [dataclasses.asdict(entry) for entry in entries],
    )


@command(app)
def dictionaries(client: Client) -> Shown:
    """List the server's dictionaries."""
    entries = client.dictionaries()
    return Shown(
        lambda: _terminal.show_dictionaries(entries),
        lambda: [dataclasses.asdict(entry) for entry in entries],
    )


app.add_typer(_cli_questions.app)
app.add_typer(_cli_pairs.app)
app.add_typer(_cli_catalog.app)
app.add_typer(_cli_datasets.app, name="datasets")
app.add_typer(_cli_export.app)
app.add_typer(_cli_jobs.app, name="jobs")
app.add_typer(_cli_jobs.app, name="job", hidden=True)


@command(app)
def status(client: Client) -> Shown:
    """Show whether the server is ready, and its cache's statistics."""
    found = client.status()
    return Shown(
        lambda: _terminal.show_status(found),
        lambda: dataclasses.asdict(found),
        0 if found.serving else NOT_READY,
    )


@app.command()
def top(
    context: typer.Context,
    http: Annotated[
        Optional[str],
        typer.Option(
            envvar="CUPOLA_HTTP",
            help="The server's HTTP port; default: 7071 of the server's host.",
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks.")
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one page, of all so far.")
    ] = False,
) -> None:
    """Show what a server is doing, until interrupted."""
    from . import _metrics, _top

    session: Session = context.obj
    target = http or _http_of(session.server)
    with exits():
        if once:
            frame = _top.Frame.of(_metrics.fetch(target, session.token), None, 0)
            _terminal.new_console().print(_top.render(frame, target))
            return
        with Live(screen=True, auto_refresh=False) as live, contextlib.suppress(
            KeyboardInterrupt
        ):
            _top.watch(
                lambda: _metrics.fetch(target, session.token),
                lambda frame: live.update(
                    _top.render(frame, target), refresh=True
                ),
                interval,
            )


def _http_of(server: str) -> str:
    """The HTTP port that belongs to a server's address by default."""
    host = server.rpartition(":")[0] if ":" in server else server
    return f"{host}:{HTTP_PORT}"


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Whose it is; stands in logs.")],
    role: Annotated[str, typer.Option(help="read or admin.")] = "read",
    expires: Annotated[
        Optional[str], typer.Option(help="As in 2027-01-31, UTC.")
    ] = None,
) -> None:
    """Make a token: itself on standard error, and on standard output the line
    for the server's --tokens file (`cupola token ada >> tokens`)."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        fail("NAME: expected 1 to 64 of A-Z a-z 0-9 . _ -", 2)
    if role not in ("read", "admin"):
        fail(f"--role {role}: expected read or admin", 2)
    made = f"cupola_{secrets.token_urlsafe(32)}"
    line = f"{name} {role} {hashlib.sha256(made.encode()).hexdigest()}"
    if expires is not None:
        try:
            datetime.date.fromisoformat(expires)
        except ValueError:
            fail(f"--expires {expires}: expected a day, 2027-01-31", 2)
        line += f" expires={expires}"
    print(line)
    print(made, file=sys.stderr)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
