"""Bad interventions and ablations: refused by index and field."""

import re

import cupola
import numpy as np
import pytest

PROMPTS = [[5, 9, 2, 7], [3, 8, 1]]
RESID = "blocks.1.hook_resid_pre"
Z = "blocks.1.attn.hook_z"


@pytest.fixture(scope="module")
def subject(zoo, client):
    name = next(n for n in zoo.dictionaries if n.startswith("gpt2/"))
    client.load(name)  # its sizes are known then
    return client.model("gpt2"), client.dictionary(name)


def refused(call, *words):
    with pytest.raises(cupola.InvalidArgument) as error:
        call()
    for word in words:
        assert word in str(error.value), str(error.value)


@pytest.mark.parametrize(
    ("intervention", "words"),
    [
        (cupola.Zero("blocks.0.hook_nothing"), ["hook_nothing"]),
        (cupola.Zero("blocks.9.hook_resid_pre"), [".hook", "9"]),
        (cupola.Zero("blocks.1.attn.hook_rot_q"), [".hook", "rot_q"]),  # not in GPT-2
        (cupola.Zero(Z, heads=[4]), [".heads: 4 is not below 4"]),
        (cupola.Zero(RESID, heads=[0]), [".heads", "no heads"]),
        (cupola.Zero(Z, neurons=[8]), [".neurons: 8 is not below 8"]),
        (cupola.Zero(Z, heads=[1, 1]), [".heads: 1 comes twice"]),
        # Refused before anything of that size is made.
        (cupola.Set(Z, np.zeros((4, 8)), heads=[0] * 10**5, neurons=[0] * 10**5), ["comes twice"]),
        (cupola.Set(RESID, np.ones(31)), [".value: 31 numbers", "1 or 32"]),
        (cupola.Set(RESID, np.ones((2, 31)), [0, 1]), [".value: 62 numbers"]),
        (cupola.Set(RESID, np.ones((3, 32)), [0, 1]), [".value: 3 rows for 2 positions"]),
        (cupola.Add(RESID, np.ones((2, 32)), positions=[1, 1]), [".positions: 1 comes twice"]),
        (cupola.ProjectOut(RESID, np.eye(32)[:2] * [[1], [0]], [0, 1]), [".value: all zero"]),
        (cupola.Mean(RESID, "no such mean"), [".value", "no such mean", "no stored mean"]),
        (cupola.Add(RESID, [np.nan]), [".value", "not finite"]),
        (cupola.Add(RESID, 1.0, np.inf), [".scale"]),
        (cupola.Scale(RESID, np.nan), [".factor"]),
        (cupola.ProjectOut(RESID, np.zeros(32)), [".value: all zero"]),
        (cupola.ProjectOut(RESID, 1.0), [".value: one number is no direction"]),
        (cupola.Zero(RESID, positions=[3]), ["3", "prompt"]),
        (cupola.Zero(RESID, positions=[[0]]), ["per_prompt", "2"]),
        (cupola.Patch(RESID, [1, 2, 3, 4]), [".source: 4 tokens for a prompt of 3"]),
        (cupola.Patch(RESID, [1, 2], [0], positions=[0, 1]), [".source_positions: 1"]),
        (cupola.Patch(RESID, [1, 2], [2], positions=[0]), [".source_positions", "2"]),
        (cupola.Patch(RESID, [1, 4_000_000], [0], positions=[0]), [".source", "4000000"]),
    ],
)
def test_a_bad_intervention_is_named(subject, intervention, words):
    model, _ = subject
    good = cupola.Zero(RESID, positions=0)
    refused(lambda: model.run(PROMPTS, [good, intervention]), "interventions[1]", *words)
    sets = [[good], [good, intervention]]
    refused(lambda: model.run(PROMPTS, sets), "interventions[1][1]", *words)


def test_latents_outside_the_dictionary(subject):
    model, sae = subject
    big = sae.info.d_sae
    for bad, words in [
        (cupola.SubtractLatents(sae, [big]), [".latents", f"{big} is not below"]),
        (cupola.SetLatents(sae, {big: 1.0}), [".latents", str(big)]),
        (cupola.SetLatents(sae, {1: np.inf}), [".latents", "not finite"]),
        (cupola.SetLatents(sae, {}), [".latents", "empty"]),
        (cupola.Reconstruct(sae, {big: 1.0}), [".overrides", str(big)]),
    ]:
        refused(lambda: model.run(PROMPTS, [bad]), "interventions[0]", *words)
    with pytest.raises(cupola.NotFound, match="no-such"):
        model.run(PROMPTS, [cupola.Reconstruct("no-such")])


def test_a_dictionary_of_another_model(subject, zoo):
    model, _ = subject
    other = next(n for n in zoo.dictionaries if n.startswith("llama/"))
    bad = cupola.Reconstruct(other)
    refused(lambda: model.run(PROMPTS, [bad]), "interventions[0].dictionary", "llama")
    refused(lambda: model.run(PROMPTS, dictionaries=[other]), "dictionaries[0]", "llama")


def test_interventions_that_contradict(subject):
    model, sae = subject
    both = [cupola.Zero(RESID, [0, 2]), cupola.Set(RESID, 1.0, [1, 2])]
    refused(lambda: model.run(PROMPTS, both), "interventions[1].positions: contradicts",
            "interventions[0]", "2")
    for first, second in [
        (cupola.Set(RESID, 1.0), cupola.Set("resid_pre1", 1.0, -1)),
        (cupola.Mean(RESID, np.ones(32)), cupola.Patch(RESID, PROMPTS)),
        (cupola.Reconstruct(sae, positions=1), cupola.Zero(sae.info.hook_out, 1)),
        (cupola.Reconstruct(sae, positions=[1]), cupola.Reconstruct(sae, {0: 1.0}, 1)),
    ]:
        refused(lambda: model.run(PROMPTS, [[], [first, second]]),
                "interventions[1][1].positions: contradicts interventions[1][0]")
    apart = [cupola.Zero(Z, heads=[0]), cupola.Set(Z, 1.0, heads=[1])]
    model.run(PROMPTS, apart)
    model.run(PROMPTS, [cupola.Zero(RESID, [0]), cupola.Set(RESID, 1.0, [1])])
    twice = [cupola.SubtractLatents(sae, [1, 2]), cupola.SetLatents(sae, {2: 1.0})]
    refused(lambda: model.run(PROMPTS, twice), "interventions[1].latents: contradicts")


def test_answers_and_positions(subject):
    model, sae = subject
    refused(lambda: model.run(PROMPTS, answers=[300, 1]), "answers[0]", "300")
    refused(lambda: model.run(PROMPTS, answers=[[1], [1, 2]]), "answers[1]")
    refused(lambda: model.run(PROMPTS, answers=[1]), "answers")
    refused(lambda: model.run(PROMPTS, top_logits=301), "top_logits", "301")
    refused(lambda: sae.ablate(PROMPTS, position=-4), "-4")
    refused(lambda: sae.ablate(PROMPTS, position=[0, -1]), "position", "last token")
    refused(lambda: sae.ablate(PROMPTS, position=[[0], []]), "position: none for prompt 1")
    refused(lambda: sae.ablate([[5]], later=True, answers=3, position=0), "prompts[0]", "2")
    refused(lambda: sae.ablate([[5]], position=None), "prompts[0]", "at least 2")
    for target, words in [
        ([2, 0, 0], ["targets[1].prompt: 2"]),
        ([1, 3, 0], ["3"]),
        ([1, 0, sae.info.d_sae], ["targets[1].latent"]),
        ([1, -1, 0], ["last token of prompt 1"]),
    ]:
        refused(lambda: sae.ablate(PROMPTS, targets=[[0, 1, 2], target]), *words)
    refused(lambda: sae.ablate(PROMPTS, [1], targets=[[0, 1, 2]]), "targets")
    refused(lambda: sae.ablate(PROMPTS, targets=[[0, 1]]), "targets")
    refused(lambda: sae.ablate(PROMPTS, targets=np.zeros((0, 3), int)), "targets")
    refused(lambda: model.run(PROMPTS, loss="max"), "loss")
    refused(lambda: model.run(PROMPTS, boosts=2), "positions", "boosts")
    refused(lambda: model.run(PROMPTS, positions=-1, boosts=301), "boosts.top", "301")
    refused(lambda: model.run(PROMPTS, positions=-1, boosts=1, boost_tokens=[300]), "300")
    refused(lambda: model.run(PROMPTS, positions=-1, boosts=1, min_logprob=np.nan),
            "min_logprob")
    refused(lambda: sae.ablation_table(PROMPTS, ablate_with_bos=True), "ablate_with_bos")
    refused(lambda: sae.ablation_table(["a b c"], 1, ablate_with_bos=True), "position: 1")
    refused(lambda: sae.ablate(PROMPTS, position=-1), "position", "last token")
    sae.ablate(PROMPTS, position=-1, answers=5)
    refused(lambda: sae.ablate(PROMPTS, [sae.info.d_sae]), "latents")
    refused(lambda: sae.ablate(PROMPTS, mode="zero"), "mode")
    refused(lambda: sae.ablation_table(PROMPTS, min_share=-1.0), "min_share")
    refused(lambda: sae.ablation_table(PROMPTS, max_latents=0), "max_latents")
    assert len(sae.features(PROMPTS)) == 7  # and the server lives


def test_a_prompt_of_which_nothing_is_read(subject):
    model, _ = subject
    for interventions in ([], [cupola.Zero(RESID, positions=0)]):
        run = model.run(PROMPTS, interventions, positions=[[0], []], top_logits=2)
        assert [len(loss) for loss in run.loss] == [1, 0]


def test_changes_after_all_that_is_read(subject):
    """They change nothing, and the pass need not get as far."""
    model, _ = subject
    early = "blocks.0.hook_resid_pre"
    for late in (RESID, "ln_final.hook_normalized"):
        run = model.run(PROMPTS, [cupola.Zero(late)], loss=False, hooks=early)
        values = run.activations[early]
        for changed, clean in zip(values, values.clean):
            np.testing.assert_array_equal(changed, clean)
    assert model.run(PROMPTS, [cupola.Zero(RESID)], loss=False) is not None


def test_logits_that_are_no_numbers_stay_with_their_set(subject):
    model, _ = subject
    good = [cupola.Zero(RESID, positions=0)]
    bad = [cupola.Scale("ln_final.hook_scale", 0.0)]
    alone = model.run(PROMPTS, good, top_logits=5)
    broken, beside = model.run(PROMPTS, [bad, good], top_logits=5)
    for one, other in zip(alone.top, beside.top):
        np.testing.assert_array_equal(one.tokens, other.tokens)
    assert all(np.isfinite(top.logits).all() for top in beside.top)
    assert not all(np.isfinite(top.logits).all() for top in broken.top)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_the_size_of_a_direction_does_not_matter(subject, size):
    model, _ = subject
    direction = np.random.default_rng(5).standard_normal(32)
    one, other = model.run(
        PROMPTS,
        [[cupola.ProjectOut(RESID, direction)], [cupola.ProjectOut(RESID, size * direction)]],
    )
    for first, second in zip(one.loss, other.loss):
        np.testing.assert_allclose(first, second, atol=1e-4)


def test_a_patch_source_is_tokenized_as_the_prompts(subject):
    model, _ = subject
    texts = ["one two three", "one two three"]
    for bos in (True, False):
        run = model.run(texts, [cupola.Patch(RESID, texts)], prepend_bos=bos)
        for changed, clean in zip(run.loss, run.loss.clean):
            np.testing.assert_allclose(changed, clean, atol=1e-4)


def test_an_answer_that_no_splitting_makes_small_enough(subject):
    model, _ = subject
    sets = [[cupola.Zero(RESID, i % 20)] for i in range(1000)]
    with pytest.raises(cupola.ResourceExhausted) as error:
        model.run([[5] * 20] * 100, sets, top_logits=300)
    numbers = [int(word) for word in re.findall(r"\d+", str(error.value))]
    assert 2**31 in numbers and max(numbers) > 2**31
