"""The commands of `cupola` that ask about a pair of dictionaries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, List, Optional, Tuple

import typer

from . import _figures, _terminal_pairs
from ._cli_session import (
    BosOption,
    PositionsOption,
    ProcessingOption,
    Shown,
    TextArgument,
    command,
    fail,
    numbers,
    read,
)
from .client import Client
from .pair import Pair

app = typer.Typer()

PairArgument = Annotated[
    str,
    typer.Argument(help="A pair's name, or the input dictionary's."),
]
OutputOption = Annotated[
    Optional[str],
    typer.Option(help="The output dictionary, where PAIR is no pair."),
]
HtmlOption = Annotated[
    Optional[Path],
    typer.Option(help="Also write a figure to this file (needs plotly)."),
]


@command(app)
def jacobian(
    client: Client,
    pair: PairArgument,
    text: TextArgument,
    output: OutputOption = None,
    positions: PositionsOption = None,
    top: Annotated[
        int, typer.Option(min=1, help="Entries per token, strongest first.")
    ] = 3,
    mlp_input: Annotated[
        str,
        typer.Option(
            help="Where the MLP is evaluated: original, or reconstruction."
        ),
    ] = "original",
    block: Annotated[
        str,
        typer.Option(
            help="active: between active latents; all: by every input latent."
        ),
    ] = "active",
    min_abs: Annotated[
        float, typer.Option(help="Only entries of at least this size.")
    ] = 0.0,
    mask: Annotated[
        str,
        typer.Option(
            help="slots: all k of a TopK dictionary; positive: those above 0."
        ),
    ] = "slots",
    mode: Annotated[
        str,
        typer.Option(
            help="Across layers: full, or frozen (attention patterns and norm "
            "scales stay)."
        ),
    ] = "full",
    source_positions: Annotated[
        Optional[str],
        typer.Option(
            help="Token indices of the input latents, e.g. 1,3, or all; "
            "default: the output's own."
        ),
    ] = None,
    html: HtmlOption = None,
    processing: ProcessingOption = None,
    bos: BosOption = None,
) -> Shown:
    """Show how the latents of one dictionary move those of another, on each
    token of TEXT: around an MLP, or across layers and positions."""
    answer = _pair(client, pair, output, processing).jacobian(
        read(text),
        numbers(positions, "--positions"),
        mlp_input,
        block,
        min_abs,
        top=top if block == "all" else None,
        mask=mask,
        prepend_bos=bos,
        mode=mode,
        source_positions="all"
        if source_positions == "all"
        else numbers(source_positions, "--source-positions"),
    )
    _write(html, answer)
    return Shown(
        lambda: _terminal_pairs.show_jacobian(answer, top),
        lambda: _terminal_pairs.jacobian_json(answer),
    )


@command(app)
def sweep(
    client: Client,
    pair: PairArgument,
    text: TextArgument,
    output: OutputOption = None,
    positions: PositionsOption = None,
    sample: Annotated[
        Optional[List[str]],
        typer.Option(
            help="INPUT:OUTPUT latents, e.g. 12:340; may be given several "
            "times. Default: active ones, drawn."
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, help="Pairs to draw for each token.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
    points: Annotated[
        int, typer.Option(min=1, help="Strengths from 0 to max(5, own + 1).")
    ] = 100,
    grid: Annotated[
        Optional[str],
        typer.Option(help="The strengths themselves, e.g. 0,0.5,1,2."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="How far from a line a line's points may be.")
    ] = 1e-2,
    published_classes: Annotated[
        bool,
        typer.Option(help="Count a line without a zero region as JumpReLU."),
    ] = False,
    curves: Annotated[
        bool, typer.Option(help="With --json: the curves too.")
    ] = False,
    html: HtmlOption = None,
    processing: ProcessingOption = None,
    bos: BosOption = None,
) -> Shown:
    """Show output latents as functions of an input latent's strength, on the
    tokens of TEXT: their class, the fitted line and the curve."""
    asked = _pair(client, pair, output, processing)
    text = read(text)
    chosen = numbers(positions, "--positions")
    given = [_latents(one) for one in sample] if sample else None
    model = client.model(asked.input.info.model)
    (ids,) = model.tokenize(text, prepend_bos=bos)
    rows = len(ids) if chosen is None else len(chosen)
    answer = asked.sweep(
        text,
        chosen,
        None
        if given is None
        else [(row, *latents) for row in range(rows) for latents in given],
        grid=None if grid is None else _strengths(grid),
        points=points,
        tolerance=tolerance,
        published_classes=published_classes,
        curves=True,
        draws=draws,
        seed=seed,
        prepend_bos=bos,
    )
    _write(html, answer)
    (tokens,) = model.str_tokens([ids])
    return Shown(
        lambda: _terminal_pairs.show_sweep(answer, tokens),
        lambda: _terminal_pairs.sweep_json(answer, tokens, curves),
    )


def _pair(
    client: Client,
    name: str,
    output: Optional[str],
    processing: Optional[str],
) -> Pair:
    if output is None:
        first, second = f"{name}:in", f"{name}:out"
    else:
        first, second = name, output
    return client.pair(
        client.dictionary(first, processing),
        client.dictionary(second, processing),
    )


def _latents(value: str) -> Tuple[int, int]:
    try:
        first, second = map(int, value.split(":"))
    except ValueError:
        fail(
            "--sample: expected INPUT:OUTPUT latents such as 12:340, got "
            f"{value!r}",
            2,
        )
    return first, second


def _strengths(value: str) -> List[float]:
    try:
        return [float(part) for part in value.split(",")]
    except ValueError:
        fail(f"--grid: expected numbers such as 0,0.5,2, got {value!r}", 2)


def _write(path: Optional[Path], answer: Any) -> None:
    if path is None:
        return
    try:
        page = _figures.to_page(answer.figure())
        path.write_text(page, encoding="utf-8")
    except (ImportError, OSError) as error:
        fail(f"--html: {error}", 1)
    print(f"wrote {path}", file=sys.stderr)
