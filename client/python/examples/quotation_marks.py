# %% [markdown]
# # Which latents close a quotation?
#
# A story says `Tom said, "I am tired."`: after *tired* the model has to predict
# the token `."`. Which latents of a dictionary make it do so, what happens
# without them, and where does the prediction come from? Every question below is
# one request to a running server (`deploy/quickstart.sh` starts one with this
# model and dictionary). The file opens as a notebook in editors that know
# `# %%` cells; run as a script it prints every result.

# %%
import os

import numpy as np

import cupola

client = cupola.connect(os.environ.get("CUPOLA_ADDRESS", "localhost:7070"))
model = client.model("smollm2-135m")
sae = client.dictionary("smollm2-135m/l12-resid")

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

# %% [markdown]
# ## Which latents fire there
# Activations at position -2, and each latent's largest activation anywhere.

# %%
at_end = sae.features(prompts, positions=-2).csr
everywhere = sae.features(prompts).csr
share = np.asarray((at_end > 0.1).mean(axis=0)).ravel()
largest = everywhere.max(axis=0).toarray().ravel()
for latent in np.argsort(-share, kind="stable")[:5]:
    print(f"latent {latent}: on {share[latent]:.0%}, at most {largest[latent]:.2f}")

# %% [markdown]
# ## What each of them is worth
# For every latent that is often active: its mean activation, and how much the
# loss of the last token rises without it, once with the dictionary's error left
# in place and once under the reconstruction.

# %%
table = sae.ablation_table(prompts)
print(table.head(8).to_string(index=False))

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
# ## Several at once
# The three most important latents together, at the one position and everywhere.

# %%
together = [int(latent) for latent in table["latent"].iloc[:3]]
there, all_over = model.run(
    prompts,
    [
        [cupola.SubtractLatents(sae, together, positions=-2)],
        [cupola.SubtractLatents(sae, together)],
    ],
    positions=-2,
    answers=answer,
    top_logits=20,
)


def mean(values):
    return float(np.mean(np.concatenate([np.ravel(value) for value in values])))


for name, run in (("at -2", there), ("everywhere", all_over)):
    print(
        f"without {together} {name}: loss {mean(run.loss.clean):.3f} -> "
        f"{mean(run.loss):.3f}, rank {mean(run.rank.clean):.2f} -> {mean(run.rank):.2f}"
    )

# %% [markdown]
# ## Where the latent comes from
# The same latent after the MLP of the layer before is taken away at that position.

# %%
without = model.run(
    active,
    [cupola.Zero("blocks.12.hook_mlp_out", positions=-2)],
    positions=-2,
    loss=False,
    dictionaries=[sae],
)
found = without.features[sae.name]
before = [features[:, chosen].toarray().mean() for features in found.clean]
after = [features[:, chosen].toarray().mean() for features in found]
print(f"latent {chosen}: {np.mean(before):.3f} -> {np.mean(after):.3f} without MLP 12")

# %% [markdown]
# ## How much the dictionary keeps
# Loss of the last token: clean, with the residual zeroed at -2, reconstructed.

# %%
quality = sae.quality(prompts, positions=-2)
print(
    f"clean {quality.clean_loss:.3f}, zero {quality.zero_loss:.3f}, reconstruction "
    f"{quality.reconstruction_loss:.3f}: {quality.loss_recovered:.1%} recovered, "
    f"FVU {quality.fvu:.3f}, L0 {quality.l0:.1f}"
)

# %% [markdown]
# ## Which layers write the answer
# Direct logit attribution of the answer at -2, the mean over all prompts.

# %%
layers = model.attribute(prompts, tokens=answer, positions=-2, mean=True)
print(layers.top(8).to_string(index=False))

# %% [markdown]
# ## What the latents say by themselves
# Through the decoder and the unembedding, without any prompt: the tokens that
# the chosen latents raise, and the latents that raise the answer most when
# weighted with their mean activation.

# %%
print(sae.weights.tokens(together, top=5, bottom=0).to_string(index=False))
mean_activation = np.asarray(at_end.mean(axis=0)).ravel()
direct = mean_activation * sae.weights.logits(answer).reshape(-1)
for latent in np.argsort(-direct, kind="stable")[:5]:
    print(f"latent {latent} adds {direct[latent]:.3f} to the logit of {answer}")
client.close()
