# %% [markdown]
# # Through which neurons does a transcoder's feature act?
#
# A transcoder stands for an MLP: few features, each with a direction that it
# writes. The MLP writes through neurons, and which of them are open depends on
# all features together. A *midcoder* says what every feature adds to every
# neuron's pre-activation; the neurons' own output weights then foretell what the
# feature writes, if its neurons were open as often as they are on average. Where
# the two agree, the feature acts through neurons by itself; where not, with
# others.
#
# This replays, cell by cell, the published notebook that compares a transcoder
# with its MLP, on models that `small_models.py` makes in a minute:
#
#     python small_models.py small
#     build/cupola_server --catalog small/catalog.textproto
#
# The file opens as a notebook in editors that know `# %%` cells; run as a script
# it prints every result, and saves figures as pages and pictures in `figures/`
# (`pip install plotly matplotlib`).
#
# What differs from the published run, whose outputs were not kept: the model (a
# layer of GPT-2 small there, with 24,576 features of which 2,000 were looked at),
# its transcoder and the text. The gate of a neuron is 1 where its pre-activation
# is positive, as published, although the MLP's activation is a GELU.

# %%
import os
import pathlib

import numpy as np
import pandas
import plotly.graph_objects as graph
from figure_files import save
from scipy.special import ndtr

import cupola

FIGURES = os.environ.get("CUPOLA_FIGURES", "figures")
SMALL = pathlib.Path(os.environ.get("CUPOLA_SMALL", "small"))
TOKENS = int(os.environ.get("CUPOLA_TOKENS", 20_000))

client = cupola.connect(os.environ.get("CUPOLA_ADDRESS", "localhost:7070"))
(transcoder,) = (
    client.dictionary(one.name)
    for one in client.dictionaries()
    if one.name.endswith("/transcoder")
)
midcoder = client.dictionary(transcoder.name.replace("/transcoder", "/midcoder"))
model = client.model(transcoder.info.model, processing="folded")
print(transcoder.info)

# %% [markdown]
# ## The corpus, and how often features fire
# One pass over all features: frequencies as powers of ten, which the published
# notebook reads from a file of the transcoder's.

# %%
try:
    corpus = client.dataset("stories")
except cupola.NotFound:
    corpus = client.dataset("stories", SMALL / "corpus.jsonl")
rows = corpus.select(model, skip_positions=1)
table = transcoder.statistics(rows).result().to_dataframe()
frequency = table["density"].to_numpy()
with np.errstate(divide="ignore"):
    logarithm = np.log10(frequency)
for name, mask in (
    ("live, above -4", logarithm > -4),
    ("high, above -2", logarithm > -2),
    ("from -3 to -2.5", (logarithm > -3) & (logarithm < -2.5)),
    ("from -3.5 to -3", (logarithm > -3.5) & (logarithm < -3)),
):
    print(f"{name}: {mask.sum()} of {len(mask)} features")


def layout(figure, title, x, y, **more):
    figure.update_layout(
        title=title,
        xaxis={"title": x, **more.pop("xaxis", {})},
        yaxis={"title": y, **more.pop("yaxis", {})},
        width=760,
        height=480,
        **more,
    )
    return figure


def bars(values, edges, title, x):
    counts, edges = np.histogram(values, edges)
    middles = (edges[1:] + edges[:-1]) / 2
    figure = graph.Figure(graph.Bar(x=middles, y=counts, width=np.diff(edges)))
    return layout(figure, title, x, "features")


live = np.isfinite(logarithm)
title = "How often features fire"
save(bars(logarithm[live], 30, title, "log10 of frequency"), FIGURES, "d-frequencies")

# %% [markdown]
# ## Some features
# Drawn by chance among the live ones. (The published 2,000 are drawn with
# replacement, so some are there twice; here none is.)

# %%
draw = np.random.default_rng(42)
some = draw.permutation(np.flatnonzero(logarithm > -4))[:64]
chosen = np.sort(some).tolist()

# %% [markdown]
# ## What the MLP does on the corpus
# The features on every token, the MLP's pre-activations and its output, from the
# server; and what transcoder and midcoder make of them. The midcoder is a
# dictionary with the transcoder's encoder, whose decoder writes the MLP's
# pre-activations; its neurons that are open, through the MLP's own output
# weights, are its output.

# %%
tokens, count = [], 0
for row in corpus.tokens(rows.tokenization, 0, len(corpus)):
    if count < TOKENS:
        tokens.append(row)
        count += len(row)
layer = int(transcoder.info.hook_out.split(".")[1])
PRE, OUT = f"blocks.{layer}.mlp.hook_pre", f"blocks.{layer}.hook_mlp_out"
found = transcoder.features(tokens)
behind_first = found.position > 0
acts = found.csr[behind_first].toarray().astype(np.float64)
seen = model.activations(tokens, [PRE, OUT])
pre, out = (
    np.concatenate([one[1:] for one in seen[hook]]).astype(np.float64)
    for hook in (PRE, OUT)
)
w_mid, b_mid, w_dec, b_dec = (
    dictionary.weight(name).astype(np.float64)
    for dictionary in (midcoder, transcoder)
    for name in ("W_dec", "b_dec")
)
w_out, b_out = (
    model.weight(f"blocks.{layer}.mlp.{name}").astype(np.float64)
    for name in ("W_out", "b_out")
)
by_transcoder = acts @ w_dec + b_dec
mid = acts @ w_mid + b_mid
gate = mid > 0
by_midcoder = (gate * mid) @ w_out + b_out
print(
    f"mean squared errors over {len(acts):,} tokens: transcoder "
    f"{((by_transcoder - out) ** 2).mean():.5f}, midcoder "
    f"{((by_midcoder - out) ** 2).mean():.5f}, its pre-activations "
    f"{((mid - pre) ** 2).mean():.5f}; the output itself {(out**2).mean():.5f}"
)

# %% [markdown]
# The model's loss with each of them in the MLP's place, on some texts. The first
# one is an intervention that the server knows; the second one's output is sent.

# %%
losses = {"clean": [], "transcoder": [], "midcoder": []}
begin = 0
for row in tokens[:40]:
    places = list(range(1, len(row)))
    values = by_midcoder[begin : begin + len(places)].astype(np.float32)
    begin += len(places)
    runs = model.run(
        [row],
        [
            [cupola.Reconstruct(transcoder, positions=places)],
            [cupola.Set(OUT, values, positions=places)],
        ],
    )
    losses["clean"].append(runs[0].loss.clean[0][1:])
    losses["transcoder"].append(runs[0].loss[0][1:])
    losses["midcoder"].append(runs[1].loss[0][1:])
said = {name: np.concatenate(parts).mean() for name, parts in losses.items()}
print(
    f"loss: clean {said['clean']:.4f}, with the transcoder "
    f"{said['transcoder']:.4f}, with the midcoder {said['midcoder']:.4f}"
)

# %% [markdown]
# ## Foretold decoders
# Of each feature the mean of activation times gate at every neuron, where it is
# active, through its row of the midcoder and the MLP's output weights: and its
# cosine with the row of the decoder that was trained. (Published: weak below
# 0.7.)

# %%
on = acts[:, chosen] > 0
times = on.sum(axis=0)  # act_counts
act_sum, act_sq_sum = acts[:, chosen].sum(axis=0), (acts[:, chosen] ** 2).sum(axis=0)
gated = acts[:, chosen].T @ gate  # act_gate_sum
open_counts = on.T.astype(np.float64) @ gate  # gate_act_counts
many = np.maximum(times, 1)
expected = gated / many[:, None]
foretold = (expected * w_mid[chosen]) @ w_out


def length(x):
    return np.maximum(np.linalg.norm(x, axis=1), 1e-30)


cosine = (foretold * w_dec[chosen]).sum(axis=1)
cosine /= length(foretold) * length(w_dec[chosen])
features = pandas.DataFrame(
    {
        "latent": chosen,
        "count": times,
        "frequency": times / len(acts),
        "mean": act_sum / many,
        "predicted_cosine": cosine,
    }
)
features.to_csv(os.path.join(FIGURES, "d-features.csv"), index=False)
print(
    f"cosine with the trained row: median {np.nanmedian(cosine):.3f}, "
    f"{np.nansum(cosine < 0.7)} of {len(cosine)} are weak, below 0.7"
)
save(
    bars(
        cosine[~np.isnan(cosine)],
        np.linspace(-1, 1, 41),
        "Foretold and trained decoder rows",
        "cosine",
    ),
    FIGURES,
    "d-cosines",
)
figure = graph.Figure(
    graph.Scatter(
        x=features["frequency"],
        y=cosine,
        mode="markers",
        text=[f"feature {latent}" for latent in chosen],
        marker={"size": 8, "opacity": 0.7},
        showlegend=False,
    )
)
layout(
    figure,
    "Are common features easier to foretell?",
    "share of tokens",
    "cosine of the decoder rows",
    xaxis={"type": "log"},
)
save(figure, FIGURES, "d-cosines-by-frequency")
weakest, strongest = (chosen[pick(cosine)] for pick in (np.nanargmin, np.nanargmax))
for kind, latent in (("strongest", strongest), ("weakest", weakest)):
    said = transcoder.weights.tokens(latent, top=6, bottom=0)["token"]
    print(f"{kind}: feature {latent}, writes {', '.join(map(repr, said))}")

# %% [markdown]
# ## Features together
# How often two are active on the same token, and the correlation of being
# active: as published, which divides by sqrt(p_i (1 - p_i) p_j), and the
# symmetric one, with (1 - p_j) under the root.

# %%
counting = transcoder.coactivation(rows)
counted = counting.result()
print(counted)
together, symmetric, upstream = (
    counted.between(chosen, measure=name) for name in ("probability", "phi", "upstream")
)
print(
    f"pairs: published correlation minus symmetric one at most "
    f"{np.nanmax(np.abs(upstream - symmetric)):.4f}"
)
apart = np.nan_to_num(np.where(np.eye(len(chosen), dtype=bool), 0, symmetric))
i, j = np.unravel_index(np.argmax(apart), apart.shape)
print(
    f"most alike: {chosen[i]} and {chosen[j]}, {together[i, j]:.2%} of tokens, "
    f"correlation {symmetric[i, j]:.3f}"
)
figure = graph.Figure(
    graph.Heatmap(
        z=apart,
        zmin=-1,
        zmax=1,
        colorscale="RdBu",
        reversescale=True,
        colorbar={"title": "correlation"},
    )
)
figure.update_layout(
    title="Which features are active together",
    xaxis_title="feature",
    yaxis={"title": "feature", "autorange": "reversed"},
    width=640,
    height=600,
)
save(figure, FIGURES, "d-together")

# %% [markdown]
# ## The others as noise
# If all other features add gaussian noise to a neuron, the share of a feature's
# tokens on which the neuron is open follows from that noise's mean and variance.
# The published mean is b_mid + mid_mean - act_mean W_mid. Beside it, what noise
# that does not hang on the feature would have: its mean over all tokens, in which
# the feature has its share of act_mean, and the bias counts once. Both against
# the share that was counted; where both are off, the others do hang on it.

# %%
act_mean = act_sum / many
act_var = act_sq_sum / many - act_mean**2
mid_mean, mid_var = pre.mean(axis=0), pre.var(axis=0)
row = int(np.argmax(times))
share = times[row] / len(acts)
own = act_mean[row] * w_mid[chosen[row]]
noise_mean = b_mid + mid_mean - own
noise_var = mid_var - act_var[row] * w_mid[chosen[row]] ** 2
spread = np.sqrt(np.maximum(noise_var, 1e-12))
shares = open_counts[row] / times[row]
estimates = {
    "as published": ndtr((own + noise_mean) / spread),
    "mean over all tokens": ndtr((mid_mean + (1 - share) * own) / spread),
}
for name, values in estimates.items():
    print(
        f"feature {chosen[row]}, open neurons, {name}: off by "
        f"{np.abs(values - shares).mean():.3f} in the mean, correlation "
        f"{np.corrcoef(values, shares)[0, 1]:.3f}"
    )
figure = graph.Figure(
    [
        *(
            graph.Scatter(
                x=values,
                y=shares,
                mode="markers",
                marker={"size": 6, "opacity": 0.6},
                name=name,
            )
            for name, values in estimates.items()
        ),
        graph.Scatter(
            x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot"}, name="equal"
        ),
    ]
)
layout(
    figure,
    f"Open neurons where feature {chosen[row]} is active",
    "share foretold, with gaussian noise",
    "share counted",
)
save(figure, FIGURES, "d-noise")

# %% [markdown]
# ## Decoder rows among each other
# The most alike of the most frequent feature; then the cosines of the most
# frequent ones with what is below 0.5 set to 0, and the eigenvalues of that: as
# many large ones as there are families of directions.

# %%
common = np.argsort(-frequency, kind="stable")[:128].tolist()
print(transcoder.weights.nearest([common[0]], top_k=5).to_string(index=False))
gram = transcoder.weights.gram(common, threshold=0.5).astype(np.float64)
gram[gram < 0] = 0
eigenvalues, eigenvectors = np.linalg.eigh(gram)
eigenvalues, first = eigenvalues[::-1], eigenvectors[:, -1]
first *= np.sign(first[np.argmax(np.abs(first))])
family = [common[i] for i in np.argsort(-first, kind="stable")[:5]]
print(
    f"{len(common)} features: eigenvalues from {eigenvalues[0]:.3f} down to "
    f"{eigenvalues[-1]:.3f}, {(eigenvalues > 1.5).sum()} above 1.5; the largest is "
    f"that of {family}"
)
for latent in family[:3]:
    said = transcoder.weights.tokens(latent, top=5, bottom=0)["token"]
    print(f"  feature {latent} writes {', '.join(map(repr, said))}")
figure = graph.Figure(
    graph.Scatter(
        x=np.arange(1, len(eigenvalues) + 1),
        y=eigenvalues,
        mode="lines+markers",
        showlegend=False,
    )
)
layout(figure, "Cosines of 0.5 and more, as a matrix", "number", "eigenvalue")
save(figure, FIGURES, "d-eigenvalues")

counting.delete()
client.close()
