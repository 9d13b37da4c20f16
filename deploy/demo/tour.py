"""A first tour of a server that has the demo catalog.

    tour.py [--address localhost:7070] [--text TEXT]
"""

import argparse

import cupola
import numpy as np
from rich.console import Console
from rich.table import Table

MODEL = "smollm2-135m"
RESID, PAIR = f"{MODEL}/l12-resid", f"{MODEL}/l12-mlp"
STRONGEST = 4  # latents shown for each token
# Sentences that tell what a latent stands for: the tokens on which it fires.
ABOUT = [
    "Berlin is the capital of Germany, and Rome of Italy.",
    "My sister lives in London with her two cats.",
    "The children were singing, dancing and laughing.",
    "She wanted to buy bread, milk or cheese.",
    "In 1815 the war was over at last.",
    "Who wrote this book, and when?",
]


def show_catalog(client, console):
    table = Table(title="What the server has", title_justify="left")
    for column in ("name", "kind", "state", "size"):
        table.add_column(column)
    for model in client.models():
        size = f"{model.n_layers} layers, d_model {model.d_model}"
        table.add_row(model.name, model.family, model.state, size)
    for entry in client.dictionaries():
        size = f"{entry.d_sae} latents at {entry.hook_in}"
        table.add_row(entry.name, entry.kind, entry.state, size)
    console.print(table)


def show_tokens(client, text, console):
    model = client.model(MODEL)
    pieces = " ".join(repr(piece) for piece in model.str_tokens(text)[0])
    console.print(f"\n[bold]Tokens:[/bold] {pieces}", highlight=False)


def show_features(client, text, console):
    """The same question twice: the second answer comes from the cache."""
    sae = client.dictionary(RESID)
    first, second = sae.features(text), sae.features(text)
    table = Table(
        title=f"\nThe strongest latents of {RESID}, token by token",
        title_justify="left",
    )
    table.add_column("token")
    table.add_column("latent: activation")
    for token, latents in zip(first.tokens, first.top_per_token(STRONGEST)):
        found = "   ".join(f"{latent}: {value:.2f}" for latent, value in latents)
        table.add_row(repr(token), found)
    console.print(table)
    for name, answer in (("first", first), ("second", second)):
        origin = "from the cache" if answer.from_cache else "computed"
        console.print(
            f"{name} answer: {origin}, {1e3 * answer.seconds.total:.2f} ms in the "
            f"server, {1e3 * answer.seconds.round_trip:.1f} ms as seen here",
            highlight=False,
        )
    same = (first.csr != second.csr).nnz == 0
    console.print(f"both answers are {'identical' if same else 'DIFFERENT'}")


def show_reconstruction(client, text, console):
    for name in (RESID, f"{PAIR}:in", f"{PAIR}:out"):
        rebuilt = client.dictionary(name).reconstruct(
            text, positions=range(1, len(client.model(MODEL).tokenize(text)[0]))
        )
        console.print(
            f"{name} rebuilds {len(rebuilt)} tokens (BOS left out): FVU "
            f"{rebuilt.fvu:.3f}, {rebuilt.l0:.1f} active latents a token",
            highlight=False,
        )


def show_ablation(client, text, console):
    """What the next token's probability owes to single latents: the strongest
    push for it and the strongest against it."""
    sae = client.dictionary(RESID)
    ablation = sae.ablate(text)
    predicted = client.model(MODEL).str_tokens(text)[0][-1]
    clean = float(ablation.clean_logprob[0])
    table = Table(
        title=f"\nHow sure is the model of {predicted!r} without one latent?",
        title_justify="left",
    )
    for column in ("latent taken away", "its activation", "probability", "rank"):
        table.add_column(column, justify="right")
    table.add_row("(none)", "", f"{np.exp(clean):.1%}", str(ablation.clean_rank[0]))
    order = np.argsort(ablation.logprob, kind="stable")
    for row in [*order[:3], *order[-2:]]:
        table.add_row(
            str(ablation.latent[row]),
            f"{ablation.activation[row]:.2f}",
            f"{np.exp(ablation.logprob[row]):.1%}",
            str(ablation.rank[row]),
        )
    console.print(table)
    console.print(
        f"{len(ablation)} ablations in {1e3 * ablation.seconds.total:.0f} ms; rank 0 "
        "is the model's first guess",
        highlight=False,
    )


def where(features, latent):
    """The tokens on which a latent is strongest, BOS left out."""
    column = features.csr[:, [latent]].toarray()[:, 0]
    column[features.position == 0] = 0
    rows = [row for row in np.argsort(-column, kind="stable") if column[row] > 0]
    tokens = dict.fromkeys(repr(features.tokens[row]) for row in rows)
    return " ".join(list(tokens)[:3])


def show_jacobian(client, text, console):
    """Which latents before an MLP move which behind it, at the last token, and
    whether what the Jacobian foretells comes true."""
    pair = client.pair(PAIR)
    jacobian = pair.jacobian(text, positions=-1)
    before, behind = (
        half.features([text, *ABOUT]) for half in (pair.input, pair.output)
    )
    last = client.model(MODEL).str_tokens(text)[0][-1]
    block = np.abs(jacobian.values[0])
    table = Table(
        title=f"\nInside MLP 12, at {last!r}: which latent moves which?",
        title_justify="left",
    )
    for column in ("a latent before it", "fires on", "moves latent", "fires on"):
        side = "left" if column == "fires on" else "right"
        table.add_column(column, justify=side, no_wrap=side == "left")
    table.add_column("by", justify="right")
    links = jacobian.top(STRONGEST)
    for link in links.itertuples():
        table.add_row(
            str(link.in_latent),
            where(before, link.in_latent),
            str(link.out_latent),
            where(behind, link.out_latent),
            f"{link.value:+.3f}",
        )
    console.print(table)
    console.print(
        f"'by': how much the one behind rises when the one before rises by 1. Only "
        f"{(block > 0.02).sum()} of the {block.size} pairs of active latents reach 0.02: "
        "the MLP does a few things here, and these are the largest.",
        highlight=False,
    )
    link = links.iloc[0]
    sample = [(0, int(link.in_latent), int(link.out_latent))]
    gone = pair.ablate(text, positions=-1, samples=sample, step="strength")
    console.print(
        f"Is it so? Without latent {sample[0][1]} (all of its {gone.delta[0]:.2f}) latent "
        f"{sample[0][2]} should go from {gone.before[0]:.2f} to "
        f"{gone.before[0] - gone.delta[0] * gone.jacobian[0]:.2f}; it goes to "
        f"{gone.after[0]:.2f}.",
        highlight=False,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="localhost:7070")
    parser.add_argument("--text", default="The capital of France is Paris")
    options = parser.parse_args()
    console = Console(width=100)
    with cupola.connect(options.address) as client:
        show_catalog(client, console)
        show_tokens(client, options.text, console)
        show_features(client, options.text, console)
        console.print()
        show_reconstruction(client, options.text, console)
        show_ablation(client, options.text, console)
        show_jacobian(client, options.text, console)


if __name__ == "__main__":
    main()
