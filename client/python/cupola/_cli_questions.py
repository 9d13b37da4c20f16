"""The commands of `cupola` that ask about a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Dict, List, Optional, Tuple

import numpy as np
import typer

from . import _terminal
from ._cli_session import (
    BosOption,
    PositionsOption,
    ProcessingOption,
    Shown,
    TextArgument,
    array,
    command,
    fail,
    numbers,
    read,
    token_of,
)
from .client import Client
from .interventions import SetLatents, SubtractLatents, Zero

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
        str,
        typer.Option(
            help="Token indices to ablate and read at, each by itself, e.g. "
            "-2 or 3,5; all: at every token at once."
        ),
    ] = "-2",
    together: Annotated[
        bool,
        typer.Option(
            "--together", help="At the given positions at once; loss: the mean."
        ),
    ] = False,
    latents: Annotated[
        Optional[str],
        typer.Option(help="Only these, e.g. 50,1203; default: all active."),
    ] = None,
    target: Annotated[
        Optional[List[str]],
        typer.Option(
            help="POSITION:LATENT, instead of --position and --latents; may be "
            "given several times."
        ),
    ] = None,
    later: Annotated[
        bool,
        typer.Option("--later", help="Also the mean loss from there on."),
    ] = False,
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
    targets = [(0, *_target(one)) for one in target] if target else None
    found = client.dictionary(dictionary, processing).ablate(
        read(text),
        numbers(latents, "--latents"),
        None
        if position == "all" or targets
        else numbers(position, "--position"),
        mode,
        answer,
        later=later,
        together=together,
        targets=targets,
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
    vector: Annotated[
        Optional[Path],
        typer.Option(
            help="Explain this direction instead: a .npy file, [d_model]."
        ),
    ] = None,
    position: Annotated[
        str,
        typer.Option(help="The token index that predicts; or several, 1,3,-1."),
    ] = "-1",
    mean: Annotated[
        bool, typer.Option("--mean", help="The mean over the positions.")
    ] = False,
    level: Annotated[
        str, typer.Option(help="layers, heads or neurons.")
    ] = "layers",
    layer: Annotated[
        Optional[int],
        typer.Option(
            help="Explain the residual entering this layer; default: the last."
        ),
    ] = None,
    mlp_input: Annotated[
        bool, typer.Option("--mlp-input", help="With --layer: its MLP's input.")
    ] = False,
    apply_norm: Annotated[
        bool,
        typer.Option("--apply-norm", help="Components as the norm sees them."),
    ] = False,
    gain: Annotated[
        bool, typer.Option(help="Apply the final norm's gain.")
    ] = True,
    reference: Annotated[
        Optional[List[str]],
        typer.Option(
            help="With a latent on mlp.hook_post: a text whose mean stands for "
            "neurons that do not fire; may be given several times."
        ),
    ] = None,
    inactive: Annotated[
        Optional[Path],
        typer.Option(
            help="The same as given: a .npy file, [components, d_mlp]."
        ),
    ] = None,
    split: Annotated[
        Optional[List[str]],
        typer.Option(
            help="A dictionary whose component is told as its reconstruction "
            "and its error; may be given several times."
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="Components, the strongest first.")
    ] = 10,
    processing: ProcessingOption = "raw",
    bos: BosOption = None,
) -> Shown:
    """Show which components of MODEL speak for a next token of TEXT, for a
    latent, or for a direction."""
    if [token, latent, vector].count(None) != 2:
        fail("expected one of --token, --latent and --vector", 2)
    positions = numbers(position, "--position") or []
    if len(positions) != 1 and not mean:
        fail("--position: expected one index, or --mean over several", 2)
    whole = (
        "logit"
        if token is not None
        else "projection"
        if latent is None
        else "pre_activation"
    )
    answer = client.model(model, processing).attribute(
        read(text),
        None if token is None else token_of(token),
        None if instead_of is None else token_of(instead_of),
        dictionary=dictionary,
        latents=latent,
        vectors=None if vector is None else array(vector, "--vector")[None],
        inactive=None if inactive is None else array(inactive, "--inactive"),
        reference=reference or None,
        level=level,
        layer=layer,
        mlp_input=mlp_input,
        apply_norm=apply_norm,
        gain=gain,
        split_dictionary=split or False,
        positions=positions,
        mean=mean,
        prepend_bos=bos,
    )
    return Shown(
        lambda: _terminal.show_attribution(answer, top, whole),
        lambda: _terminal.attribution_json(answer, whole),
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
    samples: Annotated[
        int, typer.Option(min=1, help="Texts to draw; shown at the end.")
    ] = 1,
    top_logprobs: Annotated[
        int,
        typer.Option(min=0, help="With --json: likely tokens at each step."),
    ] = 0,
    set_latent: Annotated[
        Optional[List[str]],
        typer.Option(
            help="DICTIONARY:LATENT=VALUE: hold a latent there meanwhile; may "
            "be given several times."
        ),
    ] = None,
    subtract: Annotated[
        Optional[List[str]],
        typer.Option(help="DICTIONARY:LATENT: take a latent away meanwhile."),
    ] = None,
    zero: Annotated[
        Optional[List[str]],
        typer.Option(help="A hook point to hold at zero meanwhile."),
    ] = None,
    scope: Annotated[
        Optional[str],
        typer.Option(
            help="Change only the prompt's tokens (prompt) or those that are "
            "generated (generated); default: both."
        ),
    ] = None,
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
    changes: List[Any] = [
        *(_held(one, scope) for one in set_latent or ()),
        *(_taken_away(one, scope) for one in subtract or ()),
        *(Zero(hook, scope=scope) for hook in zero or ()),
    ]
    stream = client.model(model, processing).generate(
        read(text),
        max_new_tokens,
        changes,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop=[token_of(one) for one in stop] if stop else None,
        top_logprobs=top_logprobs,
        samples=samples,
        stream=True,
        prepend_bos=bos,
    )
    return Shown(
        lambda: _terminal.show_generation(stream, samples),
        lambda: _terminal.generation_json(stream, bool(top_logprobs)),
    )


def _target(value: str) -> Tuple[int, int]:
    try:
        position, latent = map(int, value.split(":"))
    except ValueError:
        fail(f"--target: expected POSITION:LATENT such as -2:50, got {value!r}", 2)
    return position, latent


def _held(value: str, scope: Any) -> SetLatents:
    # A dictionary's name may have colons too.
    place, _, number = value.rpartition("=")
    name, _, latent = place.rpartition(":")
    try:
        return SetLatents(name, {int(latent): float(number)}, scope=scope)
    except ValueError:
        fail(
            "--set-latent: expected DICTIONARY:LATENT=VALUE such as "
            f"gpt2/l6:50=8.5, got {value!r}",
            2,
        )


def _taken_away(value: str, scope: Any) -> SubtractLatents:
    name, _, latent = value.rpartition(":")
    try:
        return SubtractLatents(name, [int(latent)], scope=scope)
    except ValueError:
        fail(
            "--subtract: expected DICTIONARY:LATENT such as gpt2/l6:50, got "
            f"{value!r}",
            2,
        )
