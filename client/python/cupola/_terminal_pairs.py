"""What `cupola jacobian` and `cupola sweep` print."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np
from rich.text import Text

from ._terminal import (
    new_console,
    new_table,
    origin_fields,
    origin_line,
    three_digits,
)
from .directions import Sweep
from .jacobian import Jacobian

_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 24
_KIND_STYLES = {"linear": "green", "JumpReLU": "yellow", "other": "red"}


def _acts(latents: Any, acts: Any) -> Dict[int, float]:
    return {
        int(latent): float(act)
        for latent, act in zip(latents, acts)
        if latent >= 0
    }


def _strongest(answer: Jacobian, top: int) -> List[List[Tuple[int, int, float]]]:
    """(input latent, output latent, value) of each row, the largest first."""
    frame: List[List[Tuple[int, int, float]]] = [[] for _ in range(len(answer))]
    token, slot, in_latent, value = answer._entries()
    for row in range(len(answer)):
        mine = np.flatnonzero(token == row)
        mine = mine[np.argsort(-np.abs(value[mine]), kind="stable")[:top]]
        frame[row] = [
            (
                int(in_latent[i]),
                int(answer.out_latents[row, slot[i]]),
                float(value[i]),
            )
            for i in mine
        ]
    return frame


def show_jacobian(answer: Jacobian, top: int) -> None:
    """Of an answer for one prompt."""
    # Where inputs and outputs stand at the same tokens, one column tells both.
    apart = bool((answer.source_position != answer.position).any())
    table = new_table(
        "#",
        "token",
        *(("#from",) if apart else ()),
        "#input latent",
        "#activation",
        "#output latent",
        "#activation",
        "#d out / d in",
    )
    tokens = answer._strings(answer.token_ids)
    for row, entries in enumerate(_strongest(answer, top)):
        inputs = _acts(answer.in_latents[row], answer.in_acts[row])
        outputs = _acts(answer.out_latents[row], answer.out_acts[row])
        place: Tuple[Any, ...] = (
            str(answer.position[row]),
            Text(repr(tokens[row])),
        )
        if apart:
            place += (str(answer.source_position[row]),)
        for source, target, value in entries:
            table.add_row(
                *place,
                Text(str(source), "bold cyan"),
                three_digits(inputs.get(source, 0.0)),
                Text(str(target), "bold cyan"),
                three_digits(outputs[target]),
                Text(f"{value:+.4f}", "green" if value > 0 else "red"),
            )
            place = ("",) * len(place)
        if not entries:
            table.add_row(*place, "none")
    console = new_console()
    console.print(table)
    console.print(
        f"{top} strongest of {_size(answer)} a token; d out / d in: how much "
        "the output latent rises when the input latent rises by 1",
        soft_wrap=True,
        highlight=False,
    )
    console.print(origin_line(answer), soft_wrap=True)


def _size(answer: Jacobian) -> str:
    columns = (
        answer.in_latents.shape[1] if answer.csr is None else answer.csr.shape[1]
    )
    return f"{answer.out_latents.shape[1]} x {columns}"


def jacobian_json(answer: Jacobian) -> Dict[str, Any]:
    """Of an answer for one prompt: each token's block, or with rows against all
    input latents its entries."""
    tokens = answer._strings(answer.token_ids).tolist()
    listed = []
    entries = None if answer.csr is None else _strongest(answer, answer.csr.nnz)
    for row in range(len(answer)):
        outputs = answer.out_latents[row] >= 0
        token = {
            "position": int(answer.position[row]),
            "source_position": int(answer.source_position[row]),
            "token_id": int(answer.token_ids[row]),
            "token": tokens[row],
            "in_latents": list(
                _acts(answer.in_latents[row], answer.in_acts[row]).items()
            ),
            "out_latents": list(
                _acts(answer.out_latents[row], answer.out_acts[row]).items()
            ),
        }
        if entries is None:
            assert answer.values is not None
            inputs = answer.in_latents[row] >= 0
            block = answer.values[row][outputs][:, inputs]
            token["values"] = block.tolist()
        else:
            token["entries"] = entries[row]
        listed.append(token)
    return {
        **origin_fields(answer),
        "output_dictionary": answer.output_dictionary,
        "tokens": listed,
    }


def show_sweep(answer: Sweep, tokens: List[str]) -> None:
    """Of an answer for one prompt with curves; `tokens` are the prompt's."""
    table = new_table(
        "#",
        "token",
        "#input latent",
        "#strength",
        "#output latent",
        "class",
        "#slope",
        "#intercept",
        "zero region",
        "curve",
    )
    assert answer.curves is not None
    for i in range(len(answer)):
        kind = answer._kinds[answer.kind[i]]
        first, last = answer.zero_first[i], answer.zero_last[i]
        table.add_row(
            str(answer.position[i]),
            Text(repr(tokens[answer.position[i]])),
            Text(str(answer.in_latent[i]), "bold cyan"),
            three_digits(float(answer.strength[i])),
            Text(str(answer.out_latent[i]), "bold cyan"),
            Text(kind, _KIND_STYLES[kind]),
            f"{answer.slope[i]:+.4f}",
            f"{answer.intercept[i]:+.4f}",
            "" if np.isnan(first) else f"{first:.3g} to {last:.3g}",
            spark_line(answer.curves[i]),
        )
    console = new_console()
    console.print(table)
    counts = ", ".join(f"{n} {kind}" for kind, n in answer.counts().items())
    if len(answer):
        # The grid of a curve depends on its latent's strength.
        first, last = answer.grid[:, 0], answer.grid[:, -1]
        console.print(
            f"{len(answer)} curves of {answer.grid.shape[1]} points from "
            f"{three_digits(float(first.min()))} to "
            f"{three_digits(float(last.max()))} at most: {counts}",
            soft_wrap=True,
            highlight=False,
        )
    console.print(origin_line(answer), soft_wrap=True)


def spark_line(curve: Any) -> str:
    """A curve in a line of text, from 0 at the bottom to its largest value."""
    pieces = np.array_split(curve, min(_SPARK_WIDTH, len(curve)))
    heights = np.array([float(piece.mean()) for piece in pieces])
    most = max(heights.max(initial=0.0), 1e-30)
    steps = np.ceil(heights / most * (len(_SPARKS) - 1)).astype(int)
    return "".join(_SPARKS[max(0, step)] for step in steps)


def sweep_json(answer: Sweep, tokens: List[str], curves: bool) -> Dict[str, Any]:
    """Of an answer for one prompt; `tokens` are the prompt's."""
    listed = []
    for i in range(len(answer)):
        sample = {
            "position": int(answer.position[i]),
            "token": tokens[answer.position[i]],
            "in_latent": int(answer.in_latent[i]),
            "out_latent": int(answer.out_latent[i]),
            "strength": float(answer.strength[i]),
            "class": answer._kinds[answer.kind[i]],
            "slope": float(answer.slope[i]),
            "intercept": float(answer.intercept[i]),
            "zero_region": None
            if np.isnan(answer.zero_first[i])
            else [float(answer.zero_first[i]), float(answer.zero_last[i])],
        }
        if curves:
            assert answer.curves is not None
            sample["grid"] = answer.grid[i].tolist()
            sample["curve"] = answer.curves[i].tolist()
        listed.append(sample)
    return {
        **origin_fields(answer),
        "counts": answer.counts(),
        "samples": listed,
    }
