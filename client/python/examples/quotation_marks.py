# %% [markdown]
# # Which latents close a quotation?
#
# A story says `Tom said, "I am tired."`: after *tired* the model has to predict
# the token `."`. Which latents of a dictionary make it do so, what happens
# without them, and where does the prediction come from? Every question below is
# one request to a running server (`deploy/quickstart.sh` starts one with this
# model and its dictionaries). The file opens as a notebook in editors that know
# `# %%` cells; run as a script it prints every result.
#
# Two dictionaries take part: one of what MLP 12 writes, and one of the residual
# stream behind that layer, where the first one's latents have gone.

# %%
import collections
import os

import numpy as np

import cupola

client = cupola.connect(os.environ.get("CUPOLA_ADDRESS", "localhost:7070"))
model = client.model("smollm2-135m")
sae = client.dictionary("smollm2-135m/l12-resid")
mlp = client.dictionary("smollm2-135m/l12-mlp:out")

# %% [markdown]
# ## Prompts that end with a closed quotation
# They keep their last token, so that position -2 is the one that predicts it.

# %%
SPEAKERS = ["Tom", "Anna", "The teacher", "Her mother", "The old man", "My friend"]
SAYINGS = [
    "I am tired",
    "We should go home now",
    "It is raining again",
    "You can keep the blue one",
    "Nobody was in the garden",
    "The train is late today",
    "I have never seen the sea",
    "Please close the door",
]
candidates = [f'{who} said, "{what}."' for who in SPEAKERS for what in SAYINGS]
answer = model.single_token('."')
prompts = [
    text
    for text, ids in zip(candidates, model.tokenize(candidates))
    if ids[-1] == answer
]
print(f"{len(prompts)} of {len(candidates)} prompts end with the token {answer}")


def mean(values):
    return float(np.mean(np.concatenate([np.ravel(value) for value in values])))


# %% [markdown]
# ## Which latents fire there
# Activations at position -2, and each prompt's largest activation of each latent
# on any token but the last (and but BOS, where this model's residual is huge).

# %%
at_end = sae.features(prompts, positions=-2).csr
everywhere = sae.features(prompts)
inside = [
    (everywhere.prompt == p)
    & (everywhere.position > 0)
    & (everywhere.position < everywhere.position[everywhere.prompt == p].max())
    for p in range(len(prompts))
]
largest = np.stack([everywhere.csr[rows].max(axis=0).toarray()[0] for rows in inside])
share = np.asarray((at_end > 0.1).mean(axis=0)).ravel()
for latent in np.argsort(-share, kind="stable")[:5]:
    print(
        f"latent {latent}: on {share[latent]:.0%}, at most {largest[:, latent].max():.2f}"
    )

# %% [markdown]
# ## What each of them is worth
# For every latent that is often active: its mean activation, and how much the
# loss of the last token rises without it, once with the dictionary's error left
# in place and once under the reconstruction.

# %%
table = sae.ablation_table(prompts)
print(table.head(8).to_string(index=False))
earlier = mlp.ablation_table(prompts)
print("\nof what MLP 12 writes:")
print(earlier.head(5).to_string(index=False))

# %% [markdown]
# ## One latent
# The prompts where it is active, one ablation each.

# %%
chosen = int(table["latent"].iloc[0])
active = [text for text, on in zip(prompts, at_end[:, chosen].toarray()[:, 0]) if on]
single = sae.ablate(active, latents=[chosen], answers=answer)
print(
    f"latent {chosen}, {len(active)} prompts: loss increase "
    f"{single.loss_increase.mean():.4f} +- {single.loss_increase.std():.4f}, answer's "
    f"log-probability {single.clean_logprob.mean():.4f} -> {single.logprob.mean():.4f}"
)

# %% [markdown]
# ## Where it is strongest
# The prompts with its largest activations, and the token each of them is on. What
# the model loses there, on the whole text without the latent anywhere, and on the
# one token behind that place without it there.

# %%
column = everywhere.csr[:, chosen].toarray()[:, 0]
top = np.argsort(-largest[:, chosen], kind="stable")[:5]
peaks = []
for p in top:
    rows = np.flatnonzero(inside[p])
    peaks.append(int(everywhere.position[rows[np.argmax(column[rows])]]))
    row = rows[np.argmax(column[rows])]
    print(f"{column[row]:.2f} on {everywhere.tokens[row]!r} of {prompts[p]!r}")
strongest = [prompts[p] for p in top]
whole = model.run(strongest, [cupola.SubtractLatents(sae, [chosen])], loss="mean")
print(f"everywhere: loss increase {mean(whole.loss) - mean(whole.loss.clean):.5f}")
once = sae.ablate(strongest, latents=[chosen], position=[[p] for p in peaks])
print(f"at one position: {once.loss_increase.mean():.5f} +- {once.loss_increase.std():.5f}")

# %% [markdown]
# ## Several at once
# The three most important latents together, at the one position and everywhere;
# and the three of the earlier dictionary.

# %%
together = [int(latent) for latent in table["latent"].iloc[:3]]
before = [int(latent) for latent in earlier["latent"].iloc[:3]]
there, all_over, upstream = model.run(
    prompts,
    [
        [cupola.SubtractLatents(sae, together, positions=-2)],
        [cupola.SubtractLatents(sae, together)],
        [cupola.SubtractLatents(mlp, before, positions=-2)],
    ],
    positions=-2,
    answers=answer,
    top_logits=20,
)


for name, run in (
    (f"{together} at -2", there),
    (f"{together} everywhere", all_over),
    (f"{before} of MLP 12 at -2", upstream),
):
    increase = np.ravel(run.loss) - np.ravel(run.loss.clean)
    print(
        f"without {name}: loss increase {increase.mean():.3f} +- {increase.std():.3f}, "
        f"rank {mean(run.rank.clean):.2f} -> {mean(run.rank):.2f}"
    )

# %% [markdown]
# ## Which tokens they speak for
# The mean over all prompts of every token's log-probability, with less without
# these latents: what they make likelier, and what they hold back. Tokens that
# hardly occur in these texts, or that the model gives less than e^-9, are left out.

# %%
counts = collections.Counter(i for ids in model.tokenize(prompts) for i in ids)
common = [token for token, count in counts.items() if count >= 2]
boosted = model.run(
    prompts,
    [cupola.SubtractLatents(sae, together, positions=-2)],
    positions=-2,
    boosts=5,
    min_logprob=-9.0,
    boost_tokens=common,
).boosts
for title, ids, by in (
    ("likelier with them", boosted.tokens, boosted.boost),
    ("less likely", boosted.bottom_tokens, boosted.bottom_boost),
):
    texts = [text for (text,) in model.str_tokens([[int(i)] for i in ids])]
    shown = ", ".join(f"{text!r} {value:+.2f}" for text, value in zip(texts, by))
    print(f"{title}: {shown}")

# %% [markdown]
# ## Where the latent comes from
# The same latent when MLP 12 writes nothing at that position, or what it writes
# on average over the positions of twenty prompts.

# %%
hook = "blocks.12.hook_mlp_out"
model.mean_activation(prompts[:20], hook, name="quotation-marks")
zeroed, averaged = model.run(
    active,
    [
        [cupola.Zero(hook, positions=-2)],
        [cupola.Mean(hook, "quotation-marks", positions=-2)],
    ],
    positions=-2,
    loss=False,
    dictionaries=[sae],
)


def activation(runs):
    return np.mean([features[:, chosen].toarray().mean() for features in runs])


print(
    f"latent {chosen}: {activation(zeroed.features[sae.name].clean):.3f}, "
    f"{activation(zeroed.features[sae.name]):.3f} without MLP 12, "
    f"{activation(averaged.features[sae.name]):.3f} with its mean"
)

# %% [markdown]
# ## How much the dictionary keeps
# Loss of the last token: clean, with the hook point zeroed at -2, reconstructed.

# %%
for dictionary in (sae, mlp):
    quality = dictionary.quality(prompts, positions=-2)
    print(
        f"{dictionary.name}: clean {quality.clean_loss:.3f}, zero {quality.zero_loss:.3f}, "
        f"reconstruction {quality.reconstruction_loss:.3f}: "
        f"{quality.loss_recovered:.1%} recovered, FVU {quality.fvu:.3f}, "
        f"L0 {quality.l0:.1f}"
    )

# %% [markdown]
# ## Who writes the answer
# Direct logit attribution of the answer at -2, the mean over all prompts: every
# head and MLP, which together make the logit. Then MLP 12 in two parts: what its
# dictionary makes of it, and what that misses.

# %%
direct = model.attribute(prompts, tokens=answer, positions=-2, level="heads", mean=True)
print(direct.top(8).to_string(index=False))
logit = float(direct.result[0, 0])
print(f"{len(direct.components)} components sum to the mean logit, {logit:.3f}")
parts = model.attribute(
    prompts, tokens=answer, positions=-2, split_dictionary=mlp, mean=True
)
for name in ("12_mlp_out_reconstruction", "12_mlp_out_error"):
    print(f"{name}: {float(parts[name][0, 0]):+.3f}")

# %% [markdown]
# ## Who turns the latent on
# The same for the latent's pre-activation, over the prompts where it is active.
# (For a dictionary on a plain MLP's neurons the components would go through the
# firing neurons, and `reference=` would say what stands for the others. This
# model's MLPs are gated.)

# %%
sources = model.attribute(
    active,
    latents=[chosen],
    dictionary=sae,
    positions=-2,
    level="heads",
    split_dictionary=mlp,
    mean=True,
)
print(sources.top(8).to_string(index=False))

# %% [markdown]
# ## What the latents say by themselves
# Through the decoder and the unembedding, without any prompt: the tokens that
# the chosen latents raise, and the latents that raise the answer most when
# weighted with their mean activation.

# %%
print(sae.weights.tokens(together, top=5, bottom=0).to_string(index=False))
mean_activation = np.asarray(at_end.mean(axis=0)).ravel()
effects = mean_activation * sae.weights.logits(answer).reshape(-1)
for latent in np.argsort(-effects, kind="stable")[:5]:
    print(f"latent {latent} adds {effects[latent]:.3f} to the logit of {answer}")

# %% [markdown]
# Which latents write nearly the same direction, and how the chosen ones lie to
# each other.

# %%
print(sae.weights.nearest([chosen], top_k=3).to_string(index=False))
print(np.round(sae.weights.gram(together), 2))
client.close()
