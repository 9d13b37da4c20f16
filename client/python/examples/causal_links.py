# %% [markdown]
# # Which features before an MLP cause those behind it?
#
# Between the latents of two dictionaries around an MLP there is a Jacobian: one
# number for every pair of them, at every token. Sparse dictionaries leave a block
# of 32 x 32 active pairs of some five million, and Jacobian SAEs are trained to
# make most of that block small too. What is left reads like a circuit.
#
# This replays, cell by cell, the published notebook on the causal links of
# Jacobian SAEs, on the demo pair of SmolLM2-135M (`deploy/quickstart.sh` starts a
# server that has it). The server computes; no weights and no gradients come here.
# The file opens as a notebook in editors that know `# %%` cells; run as a script
# it prints every result, and saves figures as pages and pictures in `figures/`
# (`pip install plotly matplotlib`).
#
# What differs from the published run: the text (theirs is not free), the model
# and its pair, so the numbers do too; and derivatives by torch.autograd, which
# are checked here by finite differences that the server takes. Their 100,000
# tokens of web text are an 800-token text here: name a longer file in
# CUPOLA_TEXT.

# %%
import os
import pathlib

import numpy as np
import plotly.graph_objects as graph
from figure_files import save
from passages import PASSAGES

import cupola

FOLDER = os.environ.get("CUPOLA_FIGURES", "figures")
TOKENS = int(os.environ.get("CUPOLA_TOKENS", 100_000))

# The largest question takes minutes on two cores.
client = cupola.connect(
    os.environ.get("CUPOLA_ADDRESS", "localhost:7070"), deadline=3600
)
model = client.model("smollm2-135m")
pair = client.pair("smollm2-135m/l12-mlp")
print(pair)

# %% [markdown]
# ## The prompt
# One long text; BOS is left out, here and below.

# %%
(ids,) = model.tokenize(" ".join(PASSAGES))
ids = ids[: TOKENS + 1]
tokens = model.str_tokens([ids])[0]
behind_bos = list(range(1, len(ids)))
print(f"{len(ids)} tokens, {len(behind_bos)} without BOS")

# %% [markdown]
# ## A dense Jacobian first
# The MLP by itself, with the norm before it: d_model x d_model numbers, hardly one
# of them zero. The published cell asks autograd, 3.2 tokens a second; here two
# requests take central differences of the server's MLP (in float32, good to about
# 1e-3), and the norm's derivative is a line of algebra:
# (I - n n' / d) / rms for an RMS norm with output n.

# %%
hook = "blocks.12.ln2.hook_normalized"
acts = model.activations([ids[:2]], [hook, "blocks.12.hook_resid_mid"], positions=[1])
n = acts[hook][0][0].astype(np.float64)
resid = acts["blocks.12.hook_resid_mid"][0][0].astype(np.float64)
step = 1e-2
moves = step * np.eye(len(n))
up, down = pair.mlp((n + moves).astype("f4")), pair.mlp((n - moves).astype("f4"))
mlp_jacobian = (up.astype(np.float64) - down).T / (2 * step)  # [out, in]
norm_jacobian = (np.eye(len(n)) - np.outer(n, n) / len(n)) / (
    np.linalg.norm(resid) / np.linalg.norm(n)
)
dense = mlp_jacobian @ norm_jacobian
print(
    f"{tokens[1]!r}: {(dense > 0).sum():,} of {dense.size:,} entries are positive, "
    f"{(np.abs(dense) > 1e-6).mean():.1%} are not near zero"
)

# %% [markdown]
# ## The block between features
# At the first token behind BOS, evaluated at the input dictionary's
# *reconstruction*, as this notebook does throughout. Rows are the active output
# latents, columns the active input latents.

# %%
first = pair.jacobian([ids], positions=[1], mlp_input="reconstruction", mask="positive")
block = first.values[0]
print("input latents:", first.in_latents[0].tolist())
print("output latents:", first.out_latents[0].tolist())
small = np.argwhere(np.abs(block) < 5e-3)
print(f"{len(small)} of {block.size} elements are below 0.005, of which the first:")
for i, j in small[:5]:
    print(
        f"  output latent {first.out_latents[0, i]}, input latent "
        f"{first.in_latents[0, j]}: {block[i, j]:+.5f}"
    )
save(first.figure(0), FOLDER, "b-first-token")
first.to_dataframe().to_csv(os.path.join(FOLDER, "b-first-token.csv"), index=False)

# %% [markdown]
# ## Is it the derivative?
# The sandwich itself, encode(mlp(decode(s))), with one input latent a little
# higher and a little lower.

# %%
sae = pair.input
held = first.in_latents[0] >= 0
clean = sae.features([ids], positions=[1], top_k=int(held.sum())).csr.toarray()[0]
worst, width = 0.0, 2e-2
for j in np.flatnonzero(held)[:8]:
    moved = np.stack([clean, clean])
    moved[0, first.in_latents[0, j]] += width
    moved[1, first.in_latents[0, j]] -= width
    higher, lower = pair.sandwich(sae.decode(moved)).csr.toarray()
    latents = first.out_latents[0]
    both = (latents >= 0) & (higher[latents] > 0) & (lower[latents] > 0)
    quotient = (higher - lower)[latents[both]] / (2 * width)
    worst = max(worst, np.abs(quotient - block[both, j]).max())
print(
    f"8 columns by finite differences: off by at most {worst:.5f}, where the largest "
    f"entry is {np.abs(block).max():.3f}"
)

# %% [markdown]
# ## The whole text
# The block of every token, and how large its elements are. (Published for a pair
# on pythia-70m, trained on 300 million tokens: 234 of 1024 above 0.005, 116 above
# 0.01, 50 above 0.02. Without the Jacobian in the loss: 856, 706, 485.)

# %%
blocks = pair.jacobian([ids], behind_bos, mlp_input="reconstruction")
magnitudes = np.abs(blocks.values)
for limit in (0.005, 0.01, 0.02):
    above = (magnitudes > limit).sum(axis=(1, 2)).mean()
    print(f"{above:.0f} of {magnitudes[0].size} elements a token are above {limit}")


def bars(counts, edges, title, x):
    figure = graph.Figure(
        graph.Bar(x=(edges[:-1] + edges[1:]) / 2, y=counts, width=np.diff(edges))
    )
    figure.update_layout(
        title=title,
        xaxis_title=x,
        yaxis={"title": "count", "type": "log"},
        width=760,
        height=460,
    )
    return figure


counts, edges = np.histogram(magnitudes, bins=110, range=(0, 1.1))
save(bars(counts, edges, "|J| between active latents", "|J|"), FOLDER, "b-magnitudes")
save(blocks.figure(), FOLDER, "b-blocks")
print("the strongest links:")
strong = blocks.top(8)
print(strong.assign(token=[tokens[p] for p in strong["position"]]).to_string(index=False))

# %% [markdown]
# ## Rows against all input latents
# The decoder is linear, so an output latent also has a derivative by input latents
# that are *not* active. The active ones are part of that row.

# %%
whole = pair.jacobian(
    [ids], [1], mlp_input="reconstruction", mask="positive", block="all"
)
rows = np.stack([whole.row(0, slot) for slot in range(whole.out_latents.shape[1])])
part = rows[:, first.in_latents[0]]
print(
    f"{rows.shape[0]} x {rows.shape[1]} entries, {np.count_nonzero(rows):,} not zero; "
    f"the active columns are the block, to {np.abs(part - block).max():.1e}"
)

# %% [markdown]
# ## Are they curved?
# The second derivative of each output latent by each input latent, at the same
# token. A JumpReLU-like link has none.

# %%
curved = pair.jacobian(
    [ids], [1], mlp_input="reconstruction", mask="positive", second_order=True
)
second = curved.second_order[0]
print(
    f"second derivatives: largest {np.abs(second).max():.4f}, median "
    f"{np.median(np.abs(second)):.6f}; of first ones {np.median(np.abs(block)):.6f}"
)
limit = float(np.abs(second).max())
figure = curved.figure(0)
figure.data[0].update(
    z=second.tolist(),
    zmin=-limit,
    zmax=limit,
    hovertemplate="input latent %{x}<br>output latent %{y}<br>%{z:.4g}<extra></extra>",
)
figure.data[0].colorbar.title = "d² out / d in²"
figure.update_layout(title="Second derivatives at the first token")
save(figure, FOLDER, "b-second-derivatives")

# %% [markdown]
# ## Are small connections small?
# Every connection of some tokens, one unit of each input latent's direction taken
# away: what the output latent does where |J| is below 0.01 and where it is not.
# (A sibling of the published notebook does this for 858 tokens, 31 minutes on a
# CPU: mean change 0.0150 below, 0.0990 above.)

# %%
few = behind_bos[:40]
there = pair.jacobian([ids], few)
samples = [
    (row, int(source), int(target))
    for row in range(len(there))
    for target in there.out_latents[row]
    for source in there.in_latents[row]
    if source >= 0 and target >= 0
]
effect = pair.ablate([ids], few, samples)
below = np.abs(effect.jacobian) < 0.01
change = np.abs(effect.difference)
print(f"{len(effect):,} ablations in {effect.seconds:.1f} s in the server")
print(f"|J| < 0.01: {below.sum():,}, mean change {change[below].mean():.5f}")
print(f"|J| >= 0.01: {(~below).sum():,}, mean change {change[~below].mean():.5f}")

# %% [markdown]
# ## Averages over tokens
# |J| of every output latent against *all* input latents, summed over tokens: a
# job, which goes on on the server whatever happens to this notebook, and survives
# the server's end. The published loop managed 9.2 tokens a second.

# %%
if "CUPOLA_TEXT" in os.environ:
    text = pathlib.Path(os.environ["CUPOLA_TEXT"]).read_text(encoding="utf-8")
    (long,) = model.tokenize(text, prepend_bos=False)
    length = min(client.model("smollm2-135m").info.n_ctx, 1024) - 1
    long = [
        [ids[0], *long[start : start + length]]
        for start in range(0, min(len(long), TOKENS), length)
    ]
else:
    long = [ids]
places = [list(range(1, len(prompt))) for prompt in long]
job = pair.accumulate(
    long, places, mlp_input="reconstruction", block="all", mask="positive",
    dtype="float64",
)
for info in job.watch():
    print(info)
totals = job.result()
print(totals)
print(f"{totals.tokens / job.info.seconds:,.0f} tokens/s")

# %% [markdown]
# The distribution of the averages over all pairs of latents. Averages divide by
# all tokens, as published; the later definition divides by the tokens at which the
# output latent is active. (Published: 49 % above 0, 0.32 % above 0.001, 0.02 %
# above 0.01, 14 pairs above 0.1.)

# %%
limits = [0, 1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 1e-2, 1e-1, 1]
for name in ("tokens", "active"):
    above = totals.count_above(limits, per=name)
    print(f"mean |J| per {name}, of {totals.shape[0] * totals.shape[1]:,} pairs:")
    for limit, number in zip(limits, above):
        share = number / (totals.shape[0] * totals.shape[1])
        print(f"  above {limit:g}: {number:,} ({share:.4%})")
counts, edges = totals.histogram()
save(
    bars(counts[:-1], edges[:-1], "|J| over all tokens, not averaged", "|J|"),
    FOLDER,
    "b-histogram",
)
figure = graph.Figure(
    [
        graph.Scatter(
            x=limits[1:],
            # A logarithm has no place for 0.
            y=[share or None for share in totals.share_above(limits[1:], per=name)],
            mode="lines+markers",
            name={"tokens": "over all tokens", "active": "over active ones"}[name],
        )
        for name in ("tokens", "active")
    ]
)
figure.update_layout(
    title="Share of all pairs of latents with a mean |J| above",
    xaxis={"title": "mean |J|", "type": "log"},
    yaxis={"title": "share", "type": "log"},
    width=760,
    height=460,
)
save(figure, FOLDER, "b-averages")

# %% [markdown]
# ## The strongest links on average
# and the largest single values; and for the first of them, where its two latents
# fire.

# %%
top = totals.top(10)
top.to_csv(os.path.join(FOLDER, "b-means.csv"), index=False)
print("largest means:")
print(top.to_string(index=False))
print("largest values at one token:")
print(totals.top(5, "max").to_string(index=False))
source, target = int(top["in_latent"].iloc[0]), int(top["out_latent"].iloc[0])
print(f"row {target}: {np.count_nonzero(totals.rows(target)):,} input latents move it")
for dictionary, latent in ((pair.input, source), (pair.output, target)):
    fired = dictionary.features([ids], behind_bos, latents=[latent])
    column = fired.csr[:, latent].toarray()[:, 0]
    best = np.argsort(-column, kind="stable")[:6]
    where = ", ".join(f"{fired.tokens[i]!r} {column[i]:.2f}" for i in best if column[i])
    print(f"latent {latent} of {dictionary.name} fires on {where}")
job.delete()
client.close()
