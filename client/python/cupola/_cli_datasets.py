"""The commands of `cupola datasets`."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Annotated, Any, List, Optional, Sequence

import typer
from rich.table import Table

from . import _terminal
from ._cli_session import Shown, command
from .client import Client
from .datasets import Dataset

app = typer.Typer(
    help="Corpora that jobs go over.", no_args_is_help=True, rich_markup_mode=None
)

NameArgument = Annotated[str, typer.Argument(help="The dataset's name.")]
ModelOption = Annotated[
    str, typer.Option("--model", help="Whose tokenizer and context.")
]
PackOption = Annotated[
    bool, typer.Option("--pack", help="Documents one after another.")
]
RowTokensOption = Annotated[
    Optional[int], typer.Option(min=1, help="Tokens of a row.")
]
RowBosOption = Annotated[
    Optional[str], typer.Option("--bos", help="row, document or none.")
]
SeparatorOption = Annotated[
    Optional[str],
    typer.Option(help="Between packed documents: none, eos or bos."),
]
TooLongOption = Annotated[
    Optional[str], typer.Option(help="Longer documents: refuse or cut.")
]


@command(app)
def list(client: Client) -> Shown:
    """List the server's datasets."""
    return _shown(client.datasets())


@command(app)
def show(client: Client, name: NameArgument) -> Shown:
    """Show a dataset and what has been made of it."""
    found = client.dataset(name)

    def as_table() -> None:
        table = Table("layout", "rows", "tokens", "longest", "cut", "digest")
        for made in found.info.tokenized:
            how = made.tokenization
            table.add_row(
                f"{'packed' if how.packed else 'a row each'}, bos {how.bos}"
                + (f", separator {how.separator}" if how.packed else ""),
                *(f"{n:,}" for n in (made.rows, made.tokens, made.longest)),
                f"{made.cut:,}",
                made.digest[:16],
            )
        console = _terminal.new_console()
        console.print(str(found.info), highlight=False)
        if found.info.tokenized:
            console.print(table)

    return Shown(as_table, lambda: _plain(found))


@command(app)
def upload(
    client: Client,
    name: NameArgument,
    files: Annotated[
        List[Path],
        typer.Argument(help="JSON lines, plain text, Parquet or Arrow."),
    ],
    format: Annotated[
        Optional[str],
        typer.Option(
            help="jsonl, lines, text, parquet or arrow; default: by the name."
        ),
    ] = None,
    column: Annotated[
        Optional[str], typer.Option(help="text, input_ids or tokens.")
    ] = None,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Leave out empty documents.")
    ] = False,
    keep_hours: Annotated[
        Optional[float], typer.Option(min=0.01, help="Deleted after so long.")
    ] = None,
) -> Shown:
    """Send a corpus to the server."""
    keep = datetime.timedelta(hours=keep_hours) if keep_hours else None
    made = client.dataset(
        name, files, format, column, skip_empty=skip_empty, keep=keep
    )
    return _shown([made])


@command(app)
def delete(client: Client, name: NameArgument) -> Shown:
    """Forget a dataset; results of jobs stay."""
    client.dataset(name).delete()
    return Shown(lambda: print(f"deleted {name}"), lambda: {"deleted": name})


@command(app)
def tokenize(
    client: Client,
    name: NameArgument,
    model: ModelOption,
    pack: PackOption = False,
    row_tokens: RowTokensOption = None,
    bos: RowBosOption = None,
    separator: SeparatorOption = None,
    too_long: TooLongOption = None,
) -> Shown:
    """Make rows of tokens, unless they are there."""
    made = client.dataset(name).tokenize(
        model, pack, row_tokens, bos, separator, too_long
    )
    return Shown(
        lambda: print(
            f"{made.rows:,} rows, {made.tokens:,} tokens, the longest of "
            f"{made.longest:,}; {made.cut:,} documents cut; {made.digest}"
        ),
        lambda: dataclasses.asdict(made),
    )


def _plain(dataset: Dataset) -> Any:
    plain = dataclasses.asdict(dataset.info)
    for field in ("created", "expires"):
        plain[field] = plain[field] and plain[field].isoformat()
    return plain


def _shown(datasets: Sequence[Dataset]) -> Shown:
    def as_table() -> None:
        table = Table("name", "kind", "documents", "bytes", "expires", "sha256")
        for dataset in datasets:
            info = dataset.info
            table.add_row(
                info.name,
                info.kind,
                f"{info.rows:,}",
                f"{info.bytes:,}",
                f"{info.expires:%Y-%m-%d %H:%M}" if info.expires else "never",
                info.sha256[:16],
            )
        _terminal.new_console().print(table)

    return Shown(as_table, lambda: [_plain(dataset) for dataset in datasets])
