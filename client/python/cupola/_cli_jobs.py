"""The commands of `cupola jobs` (or `cupola job`)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, List, Optional, Tuple

import typer
from rich.table import Table

from . import _terminal
from ._cli_datasets import (
    PackOption,
    RowBosOption,
    RowTokensOption,
    SeparatorOption,
    TooLongOption,
)
from ._cli_session import Shown, command, fail
from .client import Client
from .job_info import JobInfo

app = typer.Typer(
    help="Long computations.", no_args_is_help=True, rich_markup_mode=None
)

IdArgument = Annotated[str, typer.Argument(help="The job's id.")]


@command(app)
def list(client: Client) -> Shown:
    """List the server's jobs."""
    found = client.jobs()

    def as_table() -> None:
        table = Table("id", "name", "kind", "of", "state", "tokens")
        for job in found:
            info = job.info
            part = "" if info.shard[1] == 1 else " %d/%d" % info.shard
            table.add_row(
                info.id,
                info.name,
                info.kind + part,
                info.title,
                info.state,
                f"{info.tokens_done:,} of {info.tokens:,}",
            )
        _terminal.new_console().print(table)

    return Shown(as_table, lambda: [_plain(job.info) for job in found])


@command(app)
def show(client: Client, id: IdArgument) -> Shown:
    """Show a job, and what its result is of."""
    info = client.job(id).info

    def as_text() -> None:
        print(info)
        print(json.dumps(_plain(info)["provenance"], indent=2))

    return Shown(as_text, lambda: _plain(info))


@command(app)
def watch(client: Client, id: IdArgument) -> Shown:
    """Show how a job gets on until it has ended."""
    job = client.job(id)
    for _ in job.watch():
        pass
    return _one(job.info, 0 if job.info.state == "done" else 1)


@command(app)
def cancel(client: Client, id: IdArgument) -> Shown:
    """End a job; what it computed stays."""
    return _one(client.job(id).cancel())


@command(app)
def resume(client: Client, id: IdArgument) -> Shown:
    """Go on with a cancelled or failed job."""
    return _one(client.job(id).resume())


@command(app)
def delete(client: Client, id: IdArgument) -> Shown:
    """Forget a job and its result."""
    client.job(id).delete()
    return Shown(lambda: print(f"deleted {id}"), lambda: {"deleted": id})


@command(app)
def run(
    client: Client,
    kind: Annotated[
        str,
        typer.Argument(help="feature_statistics, accumulate_jacobian, ..."),
    ],
    dictionary: Annotated[str, typer.Argument(help="A dictionary, or a pair.")],
    dataset: Annotated[str, typer.Option(help="The corpus.")],
    pack: PackOption = False,
    row_tokens: RowTokensOption = None,
    bos: RowBosOption = None,
    separator: SeparatorOption = None,
    too_long: TooLongOption = None,
    skip_positions: Annotated[
        int, typer.Option(min=0, help="First positions of a row left out.")
    ] = 0,
    option: Annotated[
        Optional[List[str]],
        typer.Option(help="NAME=JSON, of the kind's own, e.g. top_k=50."),
    ] = None,
    name: Annotated[
        Optional[str], typer.Option(help="Which no other job has.")
    ] = None,
    shard: Annotated[
        Optional[str], typer.Option(help="I/N: the I-th of N parts, from 0.")
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Wait, and write the state here.")
    ] = None,
) -> Shown:
    """Submit a job over a dataset; with --out, wait for it and write its state,
    for merge."""
    own = dict(_option(text) for text in option or [])
    model = client.describe(dictionary.removesuffix(":in")).model
    rows = client.dataset(dataset).select(
        model,
        pack,
        row_tokens,
        bos,
        separator,
        too_long,
        skip_positions=skip_positions,
    )
    job = client.submit(
        kind, dictionary, rows, name=name, shard=_shard(shard), **own
    )
    if out is not None:
        job.wait()
        job.save_shard(out)
    return _one(job.info)


@command(app)
def merge(
    client: Client,
    shards: Annotated[
        List[Path], typer.Argument(help="What run --shard --out wrote, all.")
    ],
    name: Annotated[
        Optional[str], typer.Option(help="Which no other job has.")
    ] = None,
) -> Shown:
    """Make one job of the states of all its shards."""
    return _one(client.merge_shards(shards, name).info)


def _shard(value: Optional[str]) -> Optional[Tuple[int, int]]:
    if value is None:
        return None
    index, _, count = value.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        fail(f"--shard {value}: expected I/N, as in 0/4, with I below N", 2)
    return int(index), int(count)


def _option(text: str) -> Tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        fail(f"--option {text}: expected NAME=JSON, as in top_k=50", 2)


def _plain(info: JobInfo) -> Any:
    plain = dataclasses.asdict(info)
    for field in ("submitted", "expires"):
        plain[field] = plain[field] and plain[field].isoformat()
    return plain


def _one(info: JobInfo, exit_code: int = 0) -> Shown:
    return Shown(lambda: print(info), lambda: _plain(info), exit_code)
