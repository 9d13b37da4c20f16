# %% [markdown]
# # Does the Jacobian foretell what a feature does?
#
# A Jacobian sparse autoencoder has two dictionaries, one of what an MLP reads
# and one of what it writes. The Jacobian says how much an output latent rises
# when an input latent rises a little. But features are not moved a little: they
# are on or off. So this notebook moves them for real, ten thousand times, and
# looks at what happens, and then follows single output latents along the whole
# range of an input latent's strength.
#
# It replays, cell by cell, the published notebook of Jacobian SAEs' ablations on
# the demo pair of SmolLM2-135M (`deploy/quickstart.sh` starts a server that has
# it). Each computation is one request. The file opens as a notebook in editors
# that know `# %%` cells; run as a script it prints every result, and saves
# figures as pages and pictures in `figures/` (`pip install plotly matplotlib`).
#
# What cannot be replayed here: the same on a model with *randomised* weights. A
# server takes its models from folders; to compare, register a second model whose
# weights are random and a pair that was trained on it, and change two names
# below. And the published ten million samples: the same request with more text
# and other seeds, as often as one likes.

# %%
import os
import time

import numpy as np
import plotly.graph_objects as graph
from figure_files import save
from passages import PASSAGES

import cupola

FOLDER = os.environ.get("CUPOLA_FIGURES", "figures")
SAMPLES = int(os.environ.get("CUPOLA_SAMPLES", 10_000))
PER_TOKEN = 32

# The largest question takes minutes on two cores.
client = cupola.connect(
    os.environ.get("CUPOLA_ADDRESS", "localhost:7070"), deadline=3600
)
model = client.model("smollm2-135m")
pair = client.pair("smollm2-135m/l12-mlp")
print(pair)

# %% [markdown]
# ## Tokens
# The published loop leaves out each text's BOS and the token behind it: BOS's
# activations are like no others. As many tokens as give the samples.

# %%
ids = model.tokenize(PASSAGES)
left = -(-SAMPLES // PER_TOKEN)
prompts, positions = [], []
for text, tokens in zip(PASSAGES, ids):
    taken = list(range(2, min(len(tokens), 2 + left)))
    if taken:
        prompts.append(text)
        positions.append(taken)
        left -= len(taken)
count = sum(map(len, positions))
print(f"{count} tokens of {len(prompts)} texts")
assert left == 0, f"{left} tokens too few for {SAMPLES} samples"

# %% [markdown]
# ## The sandwich
# Input dictionary, MLP, output dictionary: everything that the published function
# returns comes with one Jacobian, at the "original" input of the MLP: the input
# dictionary's error stays part of it. Latents come in falling order.

# %%
sandwich = pair.jacobian(prompts[0], positions[0], mlp_output=True, gradients=True)
for name in (
    *("in_latents", "in_acts", "out_latents", "out_acts"),
    *("values", "mlp_output", "gradients"),
):
    print(f"{name}: {list(getattr(sandwich, name).shape)}")
save(sandwich.figure(), FOLDER, "a-jacobian")

# %% [markdown]
# ## Ten thousand ablations
# Of each token 32 pairs of active latents are drawn. From the MLP's input *one
# unit* of the input latent's decoder direction is taken away (not the latent's
# own strength), so that the foretold change is minus the Jacobian's entry. A
# sample is *on the line* where the two differ by less than 0.1; in the *cluster*
# where hardly anything was foretold and the output latent fell by more than 0.5
# (it falls out of the top k); else an *outlier*. In the published run, 97.6 %,
# 2.1 % and 0.3 %.

# %%
start = time.perf_counter()
ablated = pair.ablate(prompts, positions, draws=PER_TOKEN, seed=1)
seconds = time.perf_counter() - start
for kind, number in ablated.counts().items():
    print(f"{kind}: {number} of {len(ablated)} ({number / len(ablated):.2%})")
speed = f"{len(ablated) / seconds:,.0f} samples/s (published: 196, another machine)"
print("from the cache" if ablated.from_cache else speed)
save(ablated.figure(), FOLDER, "a-ablations")
ablated.to_dataframe().to_csv(os.path.join(FOLDER, "a-ablations.csv"), index=False)

# %% [markdown]
# What those look like that the Jacobian does not foretell: output latents that
# end.

# %%
frame = ablated.to_dataframe()
off = frame[frame["class"] != "on line"]
print(off.assign(token=[ids[p][q] for p, q in zip(off.prompt, off.position)]).head(8))
ended = (off["after"] == 0).mean() if len(off) else float("nan")
print(f"{ended:.0%} of those not on the line end at exactly 0")

# %% [markdown]
# ## How strong are features?
# One unit is about what a weak latent has. (Published: below 4 for 91.5 %, median
# 1.6.) Other dictionaries have other scales.

# %%
everywhere = pair.jacobian(prompts, positions)
strengths = everywhere.in_acts[everywhere.in_latents >= 0]
print(
    f"strength of active input latents: median {np.median(strengths):.3f}, below 4 "
    f"for {(strengths < 4).mean():.1%}, largest {strengths.max():.1f}"
)


def histogram(values, bins, title, x, log=False):
    counts, edges = np.histogram(values, bins)
    figure = graph.Figure(
        graph.Bar(x=(edges[:-1] + edges[1:]) / 2, y=counts, width=np.diff(edges))
    )
    figure.update_layout(
        title=title, xaxis_title=x, yaxis_title="count", width=760, height=460
    )
    if log:
        figure.update_yaxes(type="log")
    return figure


save(
    histogram(strengths, 80, "Strength of active input latents", "activation"),
    FOLDER,
    "a-strengths",
)

# %% [markdown]
# ## Other steps
# With each latent's own strength instead of one unit, which is what taking the
# feature away means. And the later published variant, which pairs the i-th
# output latent with the i-th input latent instead of drawing.

# %%
whole = pair.ablate(prompts, positions, draws=PER_TOKEN, seed=1, step="strength")
print(f"own strength: {whole.counts()}")
k = min(everywhere.in_latents.shape[1], everywhere.out_latents.shape[1])
# (row, input latent, output latent), without the slots that are not taken.
diagonal = [
    (row, int(everywhere.in_latents[row, i]), int(everywhere.out_latents[row, i]))
    for row in range(count)
    for i in range(k)
    if everywhere.in_latents[row, i] >= 0 and everywhere.out_latents[row, i] >= 0
]
paired = pair.ablate(prompts, positions, diagonal)
print(f"i-th with i-th: {paired.counts()}")

# %% [markdown]
# ## One output latent along an input latent's strength
# From 0 to a little above its strength here, a thousand points each, the MLP and
# the output dictionary evaluated in full at every one. The published examples: a
# line with slope 0.097 and no zero region, and one of slope 0.139 behind a zero
# region from 0 to 0.81.

# %%
prompt, few = prompts[0], positions[0][:8]
drawn = pair.sweep(prompt, few, draws=PER_TOKEN, seed=2, curves=True)
shown = []
for wanted in ("linear", "JumpReLU", "other"):
    found = np.flatnonzero(drawn.kind == cupola.directions.CURVE_KINDS.index(wanted))
    if len(found):
        # The steepest says most.
        best = found[np.argmax(np.abs(drawn.slope[found]))]
        shown.append(
            (int(drawn.row[best]), int(drawn.in_latent[best]), int(drawn.out_latent[best]))
        )
examples = pair.sweep(prompt, few, shown, points=1000, curves=True)
print(examples.to_dataframe().to_string(index=False))
save(examples.figure(), FOLDER, "a-three-curves")

# %% [markdown]
# ## Two hundred curves
# of a hundred points each: those from which the three were taken.

# %%
save(drawn.figure(200), FOLDER, "a-curves")

# %% [markdown]
# ## How many are lines, or lines behind a zero region?
# A hundred points each, all residuals below 0.01. The published count also takes
# lines without a zero region for "jump ReLUs" and finds 97.1 % of them;
# the corrected one keeps linear, JumpReLU and other apart (published for the
# original pair at scale: 87 %, 10 %, 3 %).

# %%
start = time.perf_counter()
sweeps = pair.sweep(prompts, positions, draws=PER_TOKEN, seed=3)
seconds = time.perf_counter() - start
for kind, number in sweeps.counts().items():
    print(f"{kind}: {number} of {len(sweeps)} ({number / len(sweeps):.2%})")
speed = f"{len(sweeps) / seconds:,.0f} sweeps/s (published: 20.4, another machine)"
print("from the cache" if sweeps.from_cache else speed)
sweeps.to_dataframe().to_csv(os.path.join(FOLDER, "a-sweeps.csv"), index=False)
# What `published_classes=True` would make the server say.
jumps = sweeps.counts()["linear"] + sweeps.counts()["JumpReLU"]
print(f"as published: {jumps} of {len(sweeps)} are jump ReLUs ({jumps / len(sweeps):.2%})")
slopes = sweeps.slope[sweeps.kind < 2]
save(
    histogram(slopes, 100, "Slopes of lines and JumpReLUs", "slope", log=True),
    FOLDER,
    "a-slopes",
)
client.close()
