"""Features through gRPC against transformers + SAELens, for every family and
every architecture.

Tolerance: 5e-5 of the largest activation, the project's float32 promise. A latent
whose on/off decision changes when the dictionary's input moves by that much is
not compared: rounding decides it.
"""

import numpy as np
import pytest
import torch
from harness.zoo import D_MODEL, combinations, make_dictionaries, make_models

TOLERANCE = 5e-5
LENGTHS = (1, 7, 20)
DRAWS = 8  # random moves of the input that look for undecided latents


def prompts_for(family):
    generator = torch.Generator().manual_seed(len(family))
    return [
        torch.randint(0, make_models.VOCABULARY, (n,), generator=generator).tolist()
        for n in LENGTHS
    ]


@torch.no_grad()
def expected(family, folder, prompts):
    """Dense float64 activations and where they are decided: [tokens, d_sae]."""
    model = make_models.build(family)
    # hidden_states[1] is what enters block 1: blocks.1.hook_resid_pre.
    rows = torch.cat([
        model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0]
        for ids in prompts
    ])
    assert rows.shape[1] == D_MODEL
    sae = make_dictionaries.load(folder).to(dtype=torch.float64)
    x = rows.double()
    dense = sae.encode(x)
    decided = torch.ones_like(dense, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        moved = sae.encode(x + TOLERANCE * x.abs().max() * noise)
        decided &= (moved > 0) == (dense > 0)
    return dense.numpy(), decided.numpy()


@pytest.mark.parametrize(("family", "architecture"), combinations())
def test_against_transformers_and_saelens(zoo, client, family, architecture):
    name = f"{family}/{architecture}"
    prompts = prompts_for(family)
    features = client.dictionary(name).features(prompts)
    dense, decided = expected(family, zoo.dictionaries[name][1], prompts)
    actual = features.csr.toarray()
    assert actual.shape == dense.shape == (sum(LENGTHS), features.csr.shape[1])
    assert [len(ids) for ids in features.prompt_token_ids] == list(LENGTHS)
    # The comparison means something: much is compared, and some of it is on.
    assert decided.mean() > 0.9
    assert (dense > 0).sum() > 20
    scale = np.abs(dense).max()
    worst = np.where(decided, np.abs(actual - dense), 0).max()
    assert worst <= TOLERANCE * scale, f"{worst} of {scale}"


def test_positions_latents_and_top_k_select_from_the_full_answer(zoo, client):
    for name in list(zoo.dictionaries)[:9]:
        sae = client.dictionary(name)
        prompts = prompts_for(zoo.dictionaries[name][0])
        full = sae.features(prompts)
        dense = full.csr.toarray()
        scale = np.abs(dense).max()
        last = sae.features(prompts, positions=[-1]).csr.toarray()
        ends = np.cumsum(LENGTHS) - 1
        assert np.abs(last - dense[ends]).max() <= TOLERANCE * scale
        latents = sorted(set(full.csr.indices[:5].tolist()))
        some = sae.features(prompts, latents=latents).csr.toarray()
        wanted = np.zeros_like(dense)
        wanted[:, latents] = dense[:, latents]
        assert np.abs(some - wanted).max() <= TOLERANCE * scale
        top = sae.features(prompts, top_k=1).csr
        strongest = dense.max(axis=1)
        for row in np.flatnonzero(strongest > 0):
            value = top[row].data
            assert abs(value[0] - strongest[row]) <= TOLERANCE * scale


def test_text_goes_through_the_models_tokenizer(zoo, client):
    family = next(iter(zoo.models))
    name = next(n for n in zoo.dictionaries if n.startswith(f"{family}/"))
    model, sae = client.model(family), client.dictionary(name)
    (ids,) = model.tokenize("the thin hat", prepend_bos=True)
    from_text = sae.features("the thin hat", prepend_bos=True)
    assert from_text.prompt_token_ids == [ids]
    from_ids = sae.features([ids])
    assert (from_text.csr != from_ids.csr).nnz == 0
