"""What the `cupola` command prints: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ._html import cell, seconds_text
from .attribution import Attribution
from .ablation import Ablation
from .features import Features
from .generation import TokenStream
from .info import Status
from .results import Activations, Answer

_LATENTS = "latent and activation, strongest first"
# Columns of the tables of entries: heading (# for numbers) and attribute.
_MODEL_COLUMNS = {
    "family": "family",
    "#layers": "n_layers",
    "#d_model": "d_model",
    "#context": "n_ctx",
    "dtype": "dtype",
    "device": "device",
    "#resident": "resident_bytes",
}
_DICTIONARY_COLUMNS = {
    "kind": "kind",
    "type": "architecture",
    "hook point": "hook_in",
    "#d_sae": "d_sae",
    "#L0": "measured.l0",
    "#FVU": "measured.fvu",
}


# Columns of long texts.
_FOLDED = ("hook point", "token", _LATENTS, "first values")
# Of tables that go into a file or a pipe, where no line need be folded.
_FILE_WIDTH = 160


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))


def show_models(entries: Sequence[Any]) -> None:
    _show_entries(entries, _MODEL_COLUMNS)


def show_dictionaries(entries: Sequence[Any]) -> None:
    _show_entries(entries, _DICTIONARY_COLUMNS)


def _show_entries(entries: Sequence[Any], columns: Dict[str, str]) -> None:
    table = new_table("name", "state", *columns)
    styles = {"resident": "green", "failed": "red", "loading": "yellow"}
    for entry in entries:
        table.add_row(
            Text(entry.name, "bold"),
            Text(entry.state, styles.get(entry.state, "")),
            *(Text(cell(entry, attribute)) for attribute in columns.values()),
        )
    console = new_console()
    console.print(table)
    for entry in entries:
        for note in (entry.failure, *getattr(entry, "warnings", ())):
            if note:
                console.print(
                    Text(f"{entry.name}: {note}", "red"), soft_wrap=True
                )


def show_ablation(answer: Ablation, top: int) -> None:
    """Of an answer for one prompt."""
    frame = answer.top(top)
    several = frame["position"].nunique() > 1
    later = answer.later_loss is not None
    table = new_table(
        *(["#position"] if several else []),
        *("#latent", "#activation"),
        *(["#clean loss"] if several else []),
        *("#loss", "#increase"),
        *(["#later loss", "#increase"] if later else []),
        *("#logprob", "#rank"),
    )
    console = new_console()
    if len(frame) and not several:
        first = frame.iloc[0]
        more = f", later loss {first.clean_later_loss:.4f}" if later else ""
        console.print(
            f"clean: loss {first.clean_loss:.4f}{more}, logprob "
            f"{first.clean_logprob:.4f}, rank {int(first.clean_rank)}"
        )
    for row in frame.itertuples():
        cells = [str(row.position)] if several else []
        cells += [str(row.latent), f"{row.activation:.3g}"]
        cells += [f"{row.clean_loss:.4f}"] if several else []
        cells += [f"{row.loss:.4f}", f"{row.loss_increase:+.4f}"]
        if later:
            increase = row.later_loss - row.clean_later_loss
            cells += [f"{row.later_loss:.4f}", f"{increase:+.4f}"]
        table.add_row(*cells, f"{row.logprob:.4f}", str(row.rank))
    console.print(table)
    console.print(origin_line(answer))


def ablation_json(answer: Ablation) -> Any:
    return json.loads(answer.to_dataframe().to_json(orient="records"))


def show_features(answer: Features, top: int) -> None:
    table = new_table("#", "token", _LATENTS)
    for position, token, strongest in zip(
        answer.position, answer.tokens, answer.top_per_token(top)
    ):
        line = Text()
        for latent, value in strongest:
            line.append(f"{latent:>6}", "bold cyan")
            line.append(f" {three_digits(value):<7}")
        table.add_row(str(position), Text(repr(token)), line)
    console = new_console()
    console.print(table)
    console.print(origin_line(answer), soft_wrap=True)


def features_json(answer: Features, top: Optional[int]) -> Dict[str, Any]:
    strongest = answer.top_per_token(top or answer.csr.shape[1])
    return {
        **origin_fields(answer),
        "tokens": [
            {
                "position": position,
                "token_id": token_id,
                "token": token,
                "latents": [list(pair) for pair in pairs],
            }
            for position, token_id, token, pairs in zip(
                answer.position.tolist(),
                answer.token_ids.tolist(),
                answer.tokens,
                strongest,
            )
        ],
    }


def show_activations(answer: Activations, tokens: List[str]) -> None:
    """Of an answer for one prompt, with that prompt's tokens."""
    console = new_console()
    for name in answer:
        array = answer[name][0]
        table = new_table("#", "token", "#norm", "first values")
        table.title = f"{escape(name)} {escape(str(list(array.shape)))}"
        table.title_justify = "left"
        for position, row in zip(
            answer.positions[0], array.reshape(len(array), -1)
        ):
            shown = " ".join(f"{value:9.4g}" for value in row[:5])
            table.add_row(
                str(position),
                Text(repr(tokens[position])),
                three_digits(float(np.linalg.norm(row.astype(np.float64)))),
                shown + (" …" if len(row) > 5 else ""),
            )
        console.print(table)
    console.print(origin_line(answer), soft_wrap=True)


def activations_json(answer: Activations) -> Dict[str, Any]:
    """Of an answer for one prompt."""
    return {
        **origin_fields(answer),
        "token_ids": answer.token_ids[0],
        "positions": answer.positions[0].tolist(),
        "activations": {name: answer[name][0].tolist() for name in answer},
    }


def show_attribution(answer: Attribution, top: int, whole: str) -> None:
    """Of an answer with one row (or a mean) and one target, a "logit", a
    "pre_activation" or a "projection"."""
    table = new_table("component", "#attribution")
    frame = answer.top(top)
    for component, value in zip(frame["component"], frame["attribution"]):
        table.add_row(component, f"{value:+.4f}")
    hidden = len(answer.components) - len(frame)
    if hidden:
        rest = float(answer.total[0, 0]) - float(frame["attribution"].sum())
        table.add_row(f"{hidden} others", f"{rest:+.4f}")
    table.add_row("constant", f"{float(answer.bias[0, 0]):+.4f}")
    table.add_row(
        Text(whole.replace("_", "-"), "bold"),
        f"{float(answer.result[0, 0]):+.4f}",
    )
    console = new_console()
    console.print(table)
    console.print(origin_line(answer), soft_wrap=True)


def attribution_json(answer: Attribution, whole: str) -> Dict[str, Any]:
    """As above."""
    return {
        **origin_fields(answer),
        "token_ids": answer.provenance.token_ids[0],
        "position": int(answer.position[0]) if len(answer) else None,
        "target": answer.targets[0],
        whole: float(answer.result[0, 0]),
        "bias": float(answer.bias[0, 0]),
        "components": dict(
            zip(answer.components, map(float, answer.values[0, :, 0]))
        ),
    }


def show_generation(stream: TokenStream, samples: int) -> None:
    """Of one prompt: the one text as it comes, or all at the end."""
    for token in stream:
        if samples == 1:
            print(token.text, end="", flush=True)
    console = new_console()
    if samples == 1:
        print(flush=True)
    else:
        for number, text in enumerate(stream.result.samples[0]):
            console.print(Text(f"{number}:", "dim"), Text(text.text))
    console.print(origin_line(stream.result), soft_wrap=True)


def generation_json(stream: TokenStream, top: bool) -> Dict[str, Any]:
    """Of one prompt; several texts are a list, `samples`."""
    for _ in stream:
        pass
    answer = stream.result
    texts = []
    for one in answer.samples[0]:
        text = one._asdict()
        likely = text.pop("top")
        if top:
            text["top"] = [
                [[choice.id, choice.token, choice.logprob] for choice in step]
                for step in likely
            ]
        texts.append(text)
    return {
        **origin_fields(answer),
        "prompt_token_ids": answer.prompt_token_ids[0],
        **(texts[0] if len(texts) == 1 else {"samples": texts}),
    }


def show_tokens(ids: List[int], tokens: List[str]) -> None:
    table = new_table("#", "#id", "token")
    for i, (index, token) in enumerate(zip(ids, tokens)):
        table.add_row(str(i), str(index), Text(repr(token)))
    new_console().print(table)


def show_status(status: Status) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    ready = "[green]ready[/]" if status.serving else "[red]not ready[/]"
    table.add_row("[bold]server[/]", f"{escape(status.target)}, {ready}")
    for prefix, part in (("", status.server), ("cache ", status.cache)):
        for field in dataclasses.fields(part):
            shown = cell(part, field.name)
            name = field.name
            if name.endswith("_seconds"):
                shown = seconds_text(getattr(part, name))
            for unit in ("_seconds", "_bytes"):
                if name.endswith(unit):
                    name = name[: -len(unit)]
            if shown:
                table.add_row(prefix + name.replace("_", " "), escape(shown))
    new_console().print(table)


def new_console() -> Console:
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH
    return console


def new_table(*headings: str) -> Table:
    """Headings that start with # stand over numbers."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in headings:
        number = heading.startswith("#")
        table.add_column(
            (heading[1:] or "#") if number else heading,
            justify="right" if number else "left",
            overflow="fold",
            # On a narrow terminal these fold; the others stay whole.
            no_wrap=heading not in _FOLDED,
            min_width=10 if heading in _FOLDED else None,
        )
    return table


def origin_line(answer: Answer) -> str:
    """Where the answer came from and how long it took."""
    seconds = answer.seconds
    trip = f"round trip {seconds_text(seconds.round_trip)}"
    if answer.from_cache:
        return f"[green]from cache[/] in {seconds_text(seconds)}, {trip}"
    return (
        f"computed in {seconds_text(seconds)} (queue "
        f"{seconds_text(seconds.queue)}, compute "
        f"{seconds_text(seconds.compute)}), {trip}"
    )


def origin_fields(answer: Answer) -> Dict[str, Any]:
    made = answer.provenance
    return {
        "model": made.model,
        "model_digest": made.model_digest,
        "dictionary": made.dictionary,
        "dictionary_digest": made.dictionary_digest,
        "dtype": made.dtype,
        "processing": made.processing,
        "from_cache": made.from_cache,
        "seconds": vars(made.seconds),
    }


def three_digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
