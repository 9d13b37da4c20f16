# %% [markdown]
# # How do features grow over training?
#
# Checkpoints of one model, each with an SAE of the same place. A feature of the
# last SAE is looked for in every earlier one: the two that fire on the same
# tokens, found for all features at once by an exact one-to-one assignment. Which
# features were there from the beginning, which came when, and do they write what
# they came to write?
#
# This replays, cell by cell, the published notebook on feature matching across
# checkpoints, on models that `small_models.py` makes in a minute:
#
#     python small_models.py small
#     build/cupola_server --catalog small/catalog.textproto
#
# The server runs the models and multiplies the activations, which never come
# here, nor are they stored. The file opens as a notebook in editors that know
# `# %%` cells; run as a script it prints every result, and saves figures as pages
# and pictures in `figures/` (`pip install plotly matplotlib`).
#
# What differs from the published run: the model, its checkpoints (6 there are
# here, 20 there), SAEs and text, so the numbers do too. And a pair with a feature
# that never fires is no match here; the published count takes such pairs, by
# index, for perfect ones (`dead="upstream"` still does).

# %%
import os
import pathlib

import numpy as np
import pandas
import plotly.graph_objects as graph
from figure_files import save

import cupola

FIGURES = os.environ.get("CUPOLA_FIGURES", "figures")
SMALL = pathlib.Path(os.environ.get("CUPOLA_SMALL", "small"))
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)

client = cupola.connect(os.environ.get("CUPOLA_ADDRESS", "localhost:7070"))

# %% [markdown]
# ## Checkpoints, SAEs and a corpus
# The corpus is sent once and tokenized by the server. Position 0 of each row is
# the token that begins a text, and is left out.

# %%
steps = sorted(
    int(one.model.rpartition("-")[2])
    for one in client.dictionaries()
    if one.name.endswith("/sae")
)
saes = [client.dictionary(f"small-{step}/sae") for step in steps]
last = saes[-1]
try:
    corpus = client.dataset("stories")
except cupola.NotFound:
    corpus = client.dataset("stories", SMALL / "corpus.jsonl")
rows = corpus.select(last.info.model, skip_positions=1)
print(f"{len(saes)} checkpoints, steps {steps}; {len(corpus)} texts")

# %% [markdown]
# ## How good are the SAEs?
# One pass over the corpus for each: dead features, the sum of the activations
# (the L1 part of the loss), and on some texts the squared error. (Published: 39.4
# squared error and 11.3 L1 for the last SAE, 15.2 and 6.8 for the first. Their
# plot has the steps ascending and the runs descending.)

# %%
few = corpus.tokens(corpus.tokenize(last.info.model).tokenization, 0, 32)
statistics, quality = [], []
for step, sae in zip(steps, saes):
    own = corpus.select(sae.info.model, skip_positions=1)
    found = sae.statistics(own, top_k=5).result()
    statistics.append(found)
    truth = sae.reconstruct(few)
    behind_first = truth.position > 0
    quality.append(
        {
            "step": step,
            "squared_error": float(truth.squared_error[behind_first].mean()),
            "l1": float(found.power_sums()[:, 0].sum() / found.tokens),
            "l0": float(found.to_dataframe()["density"].sum()),
            "dead": found.dead,
        }
    )
quality = pandas.DataFrame(quality)
print(quality.to_string(index=False, float_format="%.3f"))
names = [str(step) for step in steps]


def lines(title, y, **curves):
    """Curves over the checkpoints."""
    figure = graph.Figure(
        [
            graph.Scatter(x=names, y=list(values), mode="lines+markers", name=name)
            for name, values in curves.items()
        ]
    )
    figure.update_layout(
        title=title,
        xaxis={"title": "training step", "type": "category"},
        yaxis_title=y,
        width=760,
        height=460,
    )
    return figure


save(
    lines(
        "What the SAEs lose",
        "per token",
        **{"squared error": quality["squared_error"], "L1": quality["l1"]},
    ),
    FIGURES,
    "e-losses",
)

# %% [markdown]
# ## Which feature is which?
# One job over the corpus for all checkpoints: the cosine of every feature of the
# last SAE with every feature of another, by their activations on all tokens (not
# centred), and from these the assignment with the largest sum. A feature's
# distance is 1 - cosine.

# %%
job = last.match(saes, rows)
for info in job.watch():
    print(info)
matching = job.result()
matched = [matching.match(other) for other in range(len(saes))]
distances = np.stack([one.distances for one in matched], axis=1)
print(f"distances of shape {distances.shape}, over {matching.tokens:,} tokens")
pairs = np.stack([one.matched for one in matched], axis=1)
for kind, values in (("distances", distances), ("pairs", pairs)):
    table = pandas.DataFrame(values, columns=names).rename_axis("latent")
    table.to_csv(os.path.join(FIGURES, f"e-{kind}.csv"))

# %% [markdown]
# ## How many are there already?
# The share of the last SAE's live features with a match below a distance.
# (Published at step 0: 0.04, 0.12, 0.20, 0.27 and 0.43; at step 127,000: 0.38,
# 0.58, 0.69, 0.78 and 0.94.)

# %%
fractions = pandas.DataFrame(
    [matching.fractions(THRESHOLDS, other) for other in range(len(saes))],
    columns=[f"< {threshold}" for threshold in THRESHOLDS],
    index=pandas.Index(steps, name="step"),
)
print(fractions.to_string(float_format="%.3f"))
fractions.to_csv(os.path.join(FIGURES, "e-fractions.csv"))
save(
    lines(
        "Features of the last SAE with a match",
        "share of live features",
        **{f"distance {name}": values for name, values in fractions.items()},
    ),
    FIGURES,
    "e-fractions",
)
published = matching.fractions(THRESHOLDS, 0, dead="upstream")
print("step 0 as published counts:", np.round(published, 3).tolist())

# %% [markdown]
# How similar the matches are: a column for each checkpoint.

# %%
edges = np.linspace(0, 1, 21)
shares = np.stack(
    [
        np.histogram(np.clip(1 - one.distances[live], 0, 1), edges)[0]
        / max(one.counted, 1)
        for one in matched
        for live in [~np.isnan(one.distances)]
    ],
    axis=1,
)
figure = graph.Figure(
    graph.Heatmap(
        z=shares[::-1],
        x=names,
        y=[f"{low:.2f}" for low in edges[-2::-1]],
        zmin=0,
        zmax=float(shares[:, :-1].max()),  # the last one is its own match
        colorscale="Blues",
        colorbar={"title": "share of features"},
    )
)
figure.update_layout(
    title="Cosine of the matched features",
    xaxis={"title": "training step", "type": "category"},
    yaxis={"title": "cosine, from", "type": "category", "autorange": "reversed"},
    width=620,
    height=560,
)
save(figure, FIGURES, "e-cosines")

# %% [markdown]
# ## Do matches write the same?
# The cosine of matched features' decoder rows; nothing of this took part in the
# matching. And the features without any match: no distance below 0.9.

# %%
decoder = last.weight("W_dec")
alike = [
    one.decoder_cosines(decoder, sae.weight("W_dec")) for one, sae in zip(matched, saes)
]
written = [float(np.nanmean(cosines)) for cosines in alike]
close = [
    (
        float(np.nanmean(np.where(one.distances < 0.5, cosines, np.nan)))
        if (one.distances < 0.5).any()
        else None
    )
    for one, cosines in zip(matched, alike)
]
save(
    lines(
        "Cosine of matched features' decoder rows",
        "mean cosine",
        **{"all matches": written, "distance below 0.5": close},
    ),
    FIGURES,
    "e-decoders",
)
live = np.array([one.counted for one in matched])
unmatched = live - np.array([np.nansum(one.distances < 0.9) for one in matched])
print("without a match, of", live[-1], "live features:", unmatched.tolist())
save(
    lines("Features without a match", "features", count=unmatched),
    FIGURES,
    "e-unmatched",
)

# %% [markdown]
# ## Features that appear
# Those that have no match in any checkpoint before one, and have one in all from
# there on. One of each, and the texts where it is strongest at the end.

# %%
appearing = [matching.appearing(at, threshold=0.5) for at in range(1, len(saes))]
print("appear at", dict(zip(steps[1:], map(len, appearing))))
figure = graph.Figure(graph.Bar(x=names[1:], y=[len(found) for found in appearing]))
figure.update_layout(
    title="Features that appear at a checkpoint",
    xaxis={"title": "training step", "type": "category"},
    yaxis_title="features",
    width=760,
    height=420,
)
save(figure, FIGURES, "e-appearing")

how = rows.tokenization
model = client.model(last.info.model)
strength = statistics[-1].to_dataframe()
for step, found in zip(steps[1:], appearing):
    if not len(found):
        continue
    # Not the rarest: the one that is active on most tokens.
    latent = int(found[np.argmax(strength["count"].to_numpy()[found])])
    print(f"step {step}: feature {latent}, density {strength['density'][latent]:.2%}")
    for best in statistics[-1].top(latent, 1).head(3).itertuples():
        (ids,) = corpus.tokens(how, best.row, 1)
        (texts,) = model.str_tokens([ids])
        begin = max(0, best.position - 6)
        before = "".join(texts[begin : best.position])
        after = "".join(texts[best.position + 1 : best.position + 4])
        print(f"  {best.value:.2f}  {before}[{texts[best.position]}]{after}")

# %% [markdown]
# ## An SAE in the last one's order
# Feature i of the file that is written is the one that was matched with feature i
# of the last SAE. It is uploaded, and asked beside the other.

# %%
before = len(saes) - 2
folder = matching.save_permuted(os.path.join(FIGURES, "e-permuted"), before)
name = f"{saes[before].name}-in-order"
if name in [one.name for one in client.dictionaries()]:
    client.unregister(name)
client.upload_dictionary(name, saes[before].info.model, folder)
client.load(name)
text = corpus.documents(0, 1)[0]
ordered = client.dictionary(name).features(text).csr.toarray()
own = saes[before].features(text).csr.toarray()
assert np.allclose(ordered, own[:, matched[before].matched], atol=1e-5)
ends = last.features(text).csr.toarray()
both = ends[1:].ravel() @ ordered[1:].ravel()
print(
    f"{name}: on one text the two orders' activations have a cosine of "
    f"{both / np.linalg.norm(ends[1:]) / np.linalg.norm(ordered[1:]):.3f}"
)
client.unregister(name)
job.delete()
client.close()
