"""Runs with interventions, through gRPC, against TransformerLens with hooks that
do the same by hand, for every family and processing.

Tolerances: values within 5e-5 of their tensor's scale, losses within 1e-4; ranks
may differ by the logits that lie within that tolerance of the answer's.
"""

import functools

import cupola
import numpy as np
import pytest
import torch
from harness.zoo import D_MODEL, make_models

import tl_oracle  # harness.zoo put its folder on the path

TOLERANCE = 5e-5
LOSS_TOLERANCE = 1e-4
FAMILIES = [f for f in make_models.FAMILIES if f not in tl_oracle.UNSUPPORTED]
GENERATOR = np.random.default_rng(11)
PROMPTS = [GENERATOR.integers(1, 300, n).tolist() for n in (14, 9)]
SOURCE = GENERATOR.integers(1, 300, 11).tolist()
VECTOR = GENERATOR.standard_normal(D_MODEL).astype(np.float32)
ROWS = GENERATOR.standard_normal((2, D_MODEL)).astype(np.float32)
READ = "blocks.2.hook_resid_post"
MEAN = "mean of the prompts"
MEANS = ("blocks.1.hook_attn_out", "blocks.2.attn.hook_z")

both_processings = pytest.mark.parametrize("processing", ["raw", "folded"])


@functools.lru_cache(maxsize=2)
def oracle(family, processing):
    torch.set_grad_enabled(False)
    model = tl_oracle.hooked(
        family, make_models.build(family), processing == "folded"
    )
    # In float64, so that all rounding that is measured is Cupola's.
    model.cfg.dtype = torch.float64
    return model.to(torch.float64)


def at(positions, change, heads=None, neurons=None):
    """A hook function that changes [batch, position, (head,) width]."""

    def hook(value, hook):
        index = slice(None) if positions is None else positions
        part = value[:, index]
        new = change(part)
        if heads is not None or neurons is not None:
            mask = torch.zeros_like(part, dtype=torch.bool)
            head_index = slice(None) if heads is None else heads
            neuron_index = slice(None) if neurons is None else neurons
            if part.ndim == 4:
                mask[:, :, head_index] = True
            else:
                mask[:] = True
            if neurons is not None:
                narrow = torch.zeros_like(mask)
                narrow[..., neuron_index] = True
                mask &= narrow
            new = torch.where(mask, new, part)
        value = value.clone()
        value[:, index] = new
        return value

    return hook


def project(part):
    v = torch.tensor(VECTOR).double()
    return part - (part @ v)[..., None] * v / (v @ v)


def project_rows(part):
    v = torch.tensor(ROWS).double()
    return part - (part * v).sum(-1, keepdim=True) * v / (v * v).sum(-1, keepdim=True)


def means(family, processing):
    """The oracle's means of MEANS over all positions of PROMPTS."""
    caches = [
        oracle(family, processing).run_with_cache(
            torch.tensor([ids]), names_filter=list(MEANS)
        )[1]
        for ids in PROMPTS
    ]
    return [torch.cat([cache[hook][0] for cache in caches]).mean(0) for hook in MEANS]


def patch(family, processing, name, targets, origins):
    _, cache = oracle(family, processing).run_with_cache(
        torch.tensor([SOURCE]), names_filter=name
    )
    return at(targets, lambda part: cache[name][:, origins].expand_as(part))


def no_query(positions, heads):
    def hook(pattern, hook):  # [batch, head, query, key]
        pattern = pattern.clone()
        for position in positions:
            pattern[:, heads, position] = 0
        return pattern

    return hook


def cases(family, processing):
    """(interventions, [(hook name, hook function)])"""
    v = torch.tensor(VECTOR).double()
    resid, z = "blocks.1.hook_resid_pre", "blocks.1.attn.hook_z"
    post, mlp = "blocks.1.mlp.hook_post", "blocks.0.hook_mlp_out"
    zero = torch.zeros_like
    rows = torch.tensor(ROWS).double()
    (attn, z2), (attn_mean, z_mean) = MEANS, means(family, processing)
    one = [
        (cupola.Zero("blocks.1.hook_attn_out", [3, 5]),
         ("blocks.1.hook_attn_out", at([3, 5], zero))),
        (cupola.Zero(z, heads=[2]), (z, at(None, zero, heads=[2]))),
        (cupola.Set(post, 0.3, neurons=[1, 7]),
         (post, at(None, lambda p: p * 0 + 0.3, neurons=[1, 7]))),
        (cupola.Add("blocks.2.hook_resid_pre", VECTOR, 2.0, [-2]),
         ("blocks.2.hook_resid_pre", at([-2], lambda p: p + 2 * v))),
        (cupola.Scale(mlp, 0.5), (mlp, at(None, lambda p: p / 2))),
        (cupola.ProjectOut(resid, VECTOR, [4]), (resid, at([4], project))),
        (cupola.Patch(resid, SOURCE, [1, 9], positions=[6, 2]),
         (resid, patch(family, processing, resid, [6, 2], [1, 9]))),
        (cupola.Zero("blocks.1.attn.hook_pattern", [7], heads=[1]),
         ("blocks.1.attn.hook_pattern", no_query([7], [1]))),
        (cupola.Scale("blocks.2.attn.hook_v", 3.0, [2]),
         ("blocks.2.attn.hook_v", at([2], lambda p: p * 3))),
        (cupola.Scale("blocks.2.attn.hook_k", -1.0, [2], heads=[0], neurons=[0, 3]),
         ("blocks.2.attn.hook_k",
          at([2], lambda p: -p, heads=[0], neurons=[0, 3]))),
        (cupola.Add("hook_embed", VECTOR, positions=[5]),
         ("hook_embed", at([5], lambda p: p + v))),
        (cupola.Scale("ln_final.hook_normalized", 1.5, [3]),
         ("ln_final.hook_normalized", at([3], lambda p: p * 1.5))),
        (cupola.Add("unembed.hook_out", 20.0, neurons=[7, 20]),
         ("unembed.hook_out", at(None, lambda p: p + 20, neurons=[7, 20]))),
        (cupola.Zero(mlp), (mlp, at(None, zero))),
        (cupola.Set(resid, ROWS, [7, 3]),
         (resid, at([7, 3], lambda p: p * 0 + rows))),
        (cupola.Add(mlp, ROWS, -1.5, [[2, 6]] * len(PROMPTS)),
         (mlp, at([2, 6], lambda p: p - 1.5 * rows))),
        (cupola.ProjectOut(resid, ROWS, [5, 1]), (resid, at([5, 1], project_rows))),
        (cupola.Mean(attn, MEAN), (attn, at(None, lambda p: p * 0 + attn_mean))),
        (cupola.Mean(z2, MEAN, [4], heads=[1]),
         (z2, at([4], lambda p: p * 0 + z_mean, heads=[1]))),
    ]
    sets = [([i], [h]) for i, h in one]
    sets.append(([one[5][0], one[3][0], one[0][0]], [one[5][1], one[3][1], one[0][1]]))
    sets.append(([], []))
    return sets


def error(actual, expected):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


def check(run, changed, prompt, ids, model, hooks):
    values = {}

    def read(value, hook):
        values[hook.name] = value[0].clone()

    logits = model.run_with_hooks(
        torch.tensor([ids]), fwd_hooks=[*hooks, (READ, read)]
    )[0].double()
    logprob = torch.log_softmax(logits, -1)
    loss = -logprob[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]

    def get(field):
        return (field if changed else field.clean)[prompt]

    assert np.abs(get(run.loss) - loss.numpy()).max() <= LOSS_TOLERANCE
    assert error(get(run.activations[READ]), values[READ].numpy()) <= TOLERANCE
    answers = torch.tensor([5, 17])
    expected = logprob[:, answers].numpy()
    assert np.abs(get(run.logprob) - expected).max() <= LOSS_TOLERANCE
    margin = TOLERANCE * logits.abs().max()
    difference = logits[:, None, :] - logits[:, answers][:, :, None]
    low, high = (difference > margin).sum(-1), (difference > -margin).sum(-1)
    rank = torch.tensor(get(run.rank))
    assert ((rank >= low) & (rank <= high)).all()
    top = logits.topk(4, -1)
    assert error(get(run.top).logits, top.values.numpy()) <= TOLERANCE
    chosen = logits.gather(1, torch.tensor(get(run.top).tokens).long())
    assert (chosen - top.values).abs().max() <= margin


@both_processings
@pytest.mark.parametrize("family", FAMILIES)
def test_every_intervention_equals_a_hook(client, family, processing):
    sets = cases(family, processing)
    for hook in MEANS:
        client.model(family, processing).mean_activation(PROMPTS, hook, name=MEAN)
    runs = client.model(family, processing).run(
        PROMPTS,
        [interventions for interventions, _ in sets],
        hooks=[READ],
        answers=[[5, 17], [5, 17]],
        top_logits=4,
    )
    model = oracle(family, processing)
    for number, (run, (interventions, hooks)) in enumerate(zip(runs, sets)):
        for prompt, ids in enumerate(PROMPTS):
            check(run, True, prompt, ids, model, hooks)
            if number == 0:
                check(run, False, prompt, ids, model, [])
        if interventions:
            moved = np.abs(run.loss[0] - run.loss.clean[0]).max()
            assert moved > 1e-3, interventions
        else:
            assert all(map(np.array_equal, run.loss, run.loss.clean))


def test_a_mean_loss_is_the_mean_of_the_losses(client):
    model = client.model("llama")
    sets = [[cupola.Zero("blocks.1.hook_mlp_out", [2])], []]
    for positions in (None, [1, 4]):
        each = model.run(PROMPTS, sets, positions, answers=7)
        mean = model.run(PROMPTS, sets, positions, loss="mean", answers=7)
        for one, other in zip(each, mean):
            for part in ("changed", "clean"):
                for a, b in zip(getattr(one.loss, part), getattr(other.loss, part)):
                    assert np.ndim(b) == 0 and abs(np.mean(a) - b) <= 1e-6
                for a, b in zip(one.logprob, other.logprob):
                    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    bare = model.run(PROMPTS, sets[0], loss="mean")
    assert bare.logprob[0].size == 0 and abs(bare.loss[1] - mean[0].loss[1]) < 1


def test_boosts_are_mean_differences_of_all_log_probabilities(client):
    model = client.model("llama")
    tokens = list(range(0, 300, 3))
    sets = [
        [cupola.Scale("blocks.1.hook_mlp_out", -2.0)],
        [cupola.Zero("blocks.1.hook_attn_out", [-3])],
    ]
    every = list(range(300))
    wide = model.run(PROMPTS, sets, [-2], answers=[every] * len(PROMPTS))
    clean = np.mean([rows[0] for rows in wide[0].logprob.clean], 0, np.float64)
    floor = float(np.median(clean))
    runs = model.run(
        PROMPTS, sets, [-2], boosts=7, min_logprob=floor, boost_tokens=tokens
    )
    for run, full in zip(runs, wide):
        boost = clean - np.mean([rows[0] for rows in full.logprob], 0, np.float64)
        keep = np.isin(every, tokens) & (clean >= floor)
        assert 7 < keep.sum() < 100
        boost[~keep] = 0
        found = run.boosts
        np.testing.assert_allclose(found.boost, np.sort(boost)[::-1][:7], atol=1e-5)
        np.testing.assert_allclose(found.bottom_boost, np.sort(boost)[:7], atol=1e-5)
        np.testing.assert_allclose(boost[found.tokens], found.boost, atol=1e-5)
        np.testing.assert_allclose(boost[found.bottom_tokens], found.bottom_boost, atol=1e-5)
        assert found.boost[0] > 1e-3 > -1e-3 > found.bottom_boost[0]
    assert model.run(PROMPTS, sets, [-2], boosts=3)[0].boosts.tokens.shape == (3,)


def test_many_sets_and_prompts_come_in_one_answer(client):
    """A thousand sets: each as if it had been asked for alone."""
    model = client.model("llama")
    prompts = [GENERATOR.integers(1, 300, 5 + i % 3).tolist() for i in range(20)]
    sets = [
        [cupola.Add("blocks.1.hook_resid_pre", float(i % 7), positions=[i % 5])]
        for i in range(1000)
    ]
    runs = model.run(prompts, sets, positions=[-2], hooks=["blocks.2.attn.hook_pattern"])
    assert len(runs) == 1000
    for i in (0, 499, 998):
        alone = model.run(
            prompts, sets[i], positions=[-2], hooks=["blocks.2.attn.hook_pattern"]
        )
        for a, b in zip(runs[i].loss, alone.loss):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
        patterns = runs[i].activations["blocks.2.attn.hook_pattern"]
        for prompt, a, b in zip(
            prompts, patterns, alone.activations["blocks.2.attn.hook_pattern"]
        ):
            assert a.shape == (1, 4, len(prompt))
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
