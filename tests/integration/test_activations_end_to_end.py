"""Activations through gRPC against transformers' hidden states.

Tolerance: 5e-5 of the largest activation, the project's float32 promise.
"""

import numpy as np
import pytest
import torch
from harness.zoo import D_MODEL, make_models

TOLERANCE = 5e-5
LENGTHS = (1, 9, 24)


def prompts_for(family):
    generator = torch.Generator().manual_seed(len(family))
    return [
        torch.randint(0, make_models.VOCABULARY, (n,), generator=generator).tolist()
        for n in LENGTHS
    ]


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    worst = np.abs(actual - expected).max()
    assert worst <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("family", list(make_models.FAMILIES))
def test_the_residual_stream_is_transformers(client, zoo, family):
    model = make_models.build(family)
    prompts = prompts_for(family)
    hooks = ["blocks.1.hook_resid_pre", "resid_post1"]
    answer = client.model(family).activations(prompts, hooks)
    assert answer.hooks == ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]
    for index, ids in enumerate(prompts):
        with torch.no_grad():
            states = model(
                torch.tensor([ids]), output_hidden_states=True
            ).hidden_states
        for hook, state in zip(hooks, states[1:3]):
            assert_close(answer[hook][index], state[0].numpy())


def test_positions_and_half_precision(client, zoo):
    family = next(iter(zoo.models))
    (ids,) = [p for p in prompts_for(family) if len(p) == 9]
    model = client.model(family)
    hook = "blocks.2.hook_resid_pre"
    full = model.activations([ids], hook)[hook][0]
    some = model.activations([ids], hook, positions=[0, -1, 3])
    assert some.positions[0].tolist() == [0, 8, 3]
    assert_close(some[hook][0], full[[0, 8, 3]])
    half = model.activations([ids], hook, dtype="bfloat16")[hook][0]
    assert half.shape == (9, D_MODEL)
    # Round to nearest: half a unit in the last of 8 significant bits.
    assert (np.abs(half - full) <= np.abs(full) * 2.0**-8 + 1e-30).all()


def test_an_answer_of_several_chunks_is_whole(client, zoo):
    """More than 1 MiB: the arrays arrive in chunks, and equal those that arrive
    in one message."""
    family = next(iter(zoo.models))
    model = client.model(family)
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, make_models.VOCABULARY, (64, 60)).tolist()
    hooks = [f"blocks.{layer}.hook_resid_pre" for layer in range(3)]
    answer = model.activations(prompts, hooks)
    assert sum(a.nbytes for arrays in answer.values() for a in arrays) > 1 << 20
    for index in (0, 31, 63):
        alone = model.activations([prompts[index]], hooks)
        for hook in hooks:
            assert_close(answer[hook][index], alone[hook][0])
