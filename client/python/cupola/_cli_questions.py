"""The commands of `cupola` that ask about a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Dict, List, Optional

import numpy as np
import typer

from . import _terminal
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
    token_of,
)
from .client import Client

app = typer.Typer()


@command(app)
def features(
    client: Client,
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
) -> Shown:
    """Show which latents of DICTIONARY fire on each token of TEXT."""
    answer = client.dictionary(dictionary, processing).features(
        read(text),
        positions=numbers(positions, "--positions"),
        latents=numbers(latents, "--latents"),
        min_activation=min_activation,
        prepend_bos=bos,
    )
    return Shown(
        lambda: _terminal.show_features(answer, top or 5),
        lambda: _terminal.features_json(answer, top),
    )


@command(app)
def ablate(
    client: Client,
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
) -> Shown:
    """Show what TEXT loses when latents of DICTIONARY are taken away."""
    found = client.dictionary(dictionary, processing).ablate(
        read(text),
        numbers(latents, "--latents"),
        position,
        mode,
        answer,
        prepend_bos=bos,
    )
    return Shown(
        lambda: _terminal.show_ablation(found, top),
        lambda: _terminal.ablation_json(found),
    )


@command(app)
def activations(
    client: Client,
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
) -> Shown:
    """Show MODEL's activations at hook points on TEXT."""
    handle = client.model(model, processing)
    answer = handle.activations(
        read(text),
        hook,
        positions=numbers(positions, "--positions"),
        dtype=dtype,
        prepend_bos=bos,
    )
    (tokens,) = handle.str_tokens(answer.token_ids)
    if out is not None:
        arrays: Dict[str, Any] = {
            "positions": answer.positions[0],
            "token_ids": np.array(answer.token_ids[0]),
            **{name: answer[name][0] for name in answer},
        }
        with open(out, "wb") as file:
            np.savez(file, **arrays)
        print(f"wrote {out}", file=sys.stderr)
    return Shown(
        lambda: _terminal.show_activations(answer, tokens),
        lambda: _terminal.activations_json(answer),
    )


@command(app)
def attribute(
    client: Client,
    model: Annotated[str, typer.Argument(help="Its name.")],
    text: TextArgument,
    token: Annotated[
        Optional[str],
        typer.Option(help="The token to explain: its text, or its id."),
    ] = None,
    instead_of: Annotated[
        Optional[str],
        typer.Option(help="Explain the difference to this token's logit."),
    ] = None,
    dictionary: Annotated[
        Optional[str], typer.Option(help="With --latent: its dictionary.")
    ] = None,
    latent: Annotated[
        Optional[int],
        typer.Option(help="Explain this latent instead of a token."),
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
) -> Shown:
    """Show which components of MODEL speak for a next token of TEXT, or for a
    latent."""
    if (token is None) == (latent is None):
        fail("expected either --token or --latent", 2)
    answer = client.model(model, processing).attribute(
        read(text),
        None if token is None else token_of(token),
        None if instead_of is None else token_of(instead_of),
        dictionary=dictionary,
        latents=latent,
        level=level,
        positions=[position],
        prepend_bos=bos,
    )
    return Shown(
        lambda: _terminal.show_attribution(answer, top),
        lambda: _terminal.attribution_json(answer),
    )


@command(app)
def tokenize(
    client: Client,
    model: Annotated[str, typer.Argument(help="Its name.")],
    text: TextArgument,
    bos: BosOption = None,
) -> Shown:
    """Show the tokens that MODEL makes of TEXT."""
    handle = client.model(model)
    (ids,) = handle.tokenize(read(text), prepend_bos=bos)
    (tokens,) = handle.str_tokens([ids]) if ids else ([],)
    return Shown(
        lambda: _terminal.show_tokens(ids, tokens),
        lambda: {"token_ids": ids, "tokens": tokens},
    )


@command(app)
def generate(
    client: Client,
    model: Annotated[str, typer.Argument(help="Its name.")],
    text: TextArgument,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens to add at most.")
    ] = 64,
    temperature: Annotated[
        float, typer.Option(help="0: the most probable token each time.")
    ] = 0.0,
    top_k: Annotated[
        Optional[int], typer.Option(help="Draw from the k most probable.")
    ] = None,
    top_p: Annotated[
        Optional[float], typer.Option(help="Draw from this share of them.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
    stop: Annotated[
        Optional[List[str]],
        typer.Option(
            help="End behind this token: its text, or its id. May be given "
            "several times; default: the model's own end of text."
        ),
    ] = None,
    processing: ProcessingOption = "raw",
    bos: BosOption = None,
) -> Shown:
    """Let MODEL continue TEXT; tokens are printed as they come."""
    stream = client.model(model, processing).generate(
        read(text),
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop=[token_of(one) for one in stop] if stop else None,
        stream=True,
        prepend_bos=bos,
    )
    return Shown(
        lambda: _terminal.show_generation(stream),
        lambda: _terminal.generation_json(stream),
    )
