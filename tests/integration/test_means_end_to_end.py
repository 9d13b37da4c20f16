"""Mean activations through gRPC: their values, what interventions make of them,
and how long they stay."""

import cupola
import numpy as np
import pytest
from harness.server import Server
from harness.zoo import D_MODEL

GENERATOR = np.random.default_rng(3)
PROMPTS = [GENERATOR.integers(1, 300, n).tolist() for n in (12, 7, 9)]
Z, RESID = "blocks.1.attn.hook_z", "blocks.1.hook_resid_pre"
MLP = "blocks.1.hook_mlp_out"


@pytest.fixture(scope="module", params=["raw", "folded"])
def model(client, request):
    return client.model("llama", request.param)


def refused(call, *words):
    with pytest.raises(cupola.InvalidArgument) as error:
        call()
    for word in words:
        assert word in str(error.value), str(error.value)


@pytest.mark.parametrize("hook", [RESID, Z, "blocks.0.mlp.hook_post", "hook_embed"])
def test_a_mean_is_over_all_selected_positions(model, hook):
    for positions in (None, [1, -1], [[0, 1, 2], [3], []]):
        mean = model.mean_activation(PROMPTS, hook, positions)
        acts = model.activations(PROMPTS, [hook], positions)[hook]
        rows = np.concatenate([a.astype(np.float64) for a in acts])
        assert mean.positions == len(rows) and mean.value.dtype == np.float32
        assert mean.value.shape == rows.shape[1:]
        scale = np.abs(rows.mean(0)).max()
        assert np.abs(mean.value - rows.mean(0)).max() <= 1e-6 * scale
        np.testing.assert_array_equal(np.asarray(mean), mean.value)
    again = model.mean_activation(PROMPTS, hook, [[0, 1, 2], [3], []])
    assert again.from_cache


def test_interventions_take_a_name_for_its_numbers(model):
    hooks = [Z, MLP, RESID]
    means = {h: model.mean_activation(PROMPTS, h, name="corpus") for h in hooks}
    value = {h: mean.value for h, mean in means.items()}
    by_name = [
        [cupola.Mean(MLP, "corpus")],  # whole components
        [cupola.Mean("blocks.1.hook_attn_out", "corpus only here")],
        [cupola.Mean(Z, "corpus", heads=[2])],
        [cupola.Mean(Z, "corpus", [3], heads=[3, 1], neurons=[5, 0])],
        [cupola.Set(MLP, "corpus", neurons=[4, 7])],
        [cupola.Add(RESID, "corpus", -0.5, positions=[2])],
        [cupola.ProjectOut(RESID, "corpus", [4, 5])],
    ]
    attn = model.mean_activation(
        PROMPTS, "blocks.1.hook_attn_out", name="corpus only here"
    ).value
    by_value = [
        [cupola.Set(MLP, value[MLP])],
        [cupola.Set("blocks.1.hook_attn_out", attn)],
        [cupola.Set(Z, value[Z][[2]], heads=[2])],
        [cupola.Set(Z, value[Z][[3, 1]][:, [5, 0]], [3], heads=[3, 1], neurons=[5, 0])],
        [cupola.Set(MLP, value[MLP][[4, 7]], neurons=[4, 7])],
        [cupola.Add(RESID, value[RESID], -0.5, positions=[2])],
        [cupola.ProjectOut(RESID, value[RESID], [4, 5])],
    ]
    named = model.run(PROMPTS, by_name)
    given = model.run(PROMPTS, by_value)
    for i, (one, other) in enumerate(zip(named, given)):
        for a, b in zip(one.loss, other.loss):
            np.testing.assert_array_equal(a, b)
        assert np.abs(one.loss[0] - one.loss.clean[0]).max() > 1e-4, by_name[i]
    # One hook's mean at another, where the name stands for it alone.
    there = model.run(PROMPTS, [cupola.Add(RESID, "corpus only here")])
    same = model.run(PROMPTS, [cupola.Add(RESID, attn)])
    np.testing.assert_array_equal(there.loss[1], same.loss[1])


def test_the_question_names_the_numbers(model):
    def ask():
        return model.run(PROMPTS, [cupola.Mean(RESID, "moving", [1])], answers=3)

    model.mean_activation(PROMPTS[:1], RESID, name="moving")
    first = ask()
    assert not first.from_cache and ask().from_cache
    model.mean_activation(PROMPTS[1:], RESID, name="moving")
    moved = ask()
    assert not moved.from_cache
    assert not np.array_equal(first.loss[0], moved.loss[0])
    model.mean_activation(PROMPTS[:1], RESID, name="moving")
    assert ask().from_cache
    model.mean_activation(PROMPTS[:1], RESID, name="the same by another name")
    other = model.run(
        PROMPTS, [cupola.Mean(RESID, "the same by another name", [1])], answers=3
    )
    assert other.from_cache


def test_means_are_listed_and_deleted(model):
    digests = set()
    for name in ("a/b", "ä"):
        mean = model.mean_activation(PROMPTS, RESID, [1], name)
        digests.add(mean.stored.digest)
        assert mean.name == name and mean.hook == RESID
    listed = [
        m for m in model.means()
        if m.name in ("a/b", "ä") and m.processing == model.processing
    ]
    assert [m.name for m in listed] == ["a/b", "ä"]
    assert {m.digest for m in listed} == digests and len(digests) == 1
    assert all(m.shape == (D_MODEL,) and m.positions == 3 for m in listed)
    model.delete_mean("a/b", "resid_pre1")
    names = [m.name for m in model.means() if m.processing == model.processing]
    assert "a/b" not in names and "ä" in names
    with pytest.raises(cupola.NotFound, match="a/b"):
        model.delete_mean("a/b", RESID)


def test_bad_means(client, model):
    for call, words in [
        (lambda: model.mean_activation(PROMPTS, "blocks.1.attn.hook_pattern"),
         ["hook_pattern", "no mean"]),
        (lambda: model.mean_activation(PROMPTS, RESID, [[], [], []]), ["positions: none"]),
        (lambda: model.mean_activation(PROMPTS, RESID, name="x" * 129), ["name: 129"]),
        (lambda: model.mean_activation(PROMPTS, RESID, name="a\nb"), ["name", "control"]),
    ]:
        refused(call, *words)
    good = cupola.Zero(RESID, positions=0)
    model.mean_activation(PROMPTS, RESID, name="known")
    model.mean_activation(PROMPTS, Z, name="two")
    model.mean_activation(PROMPTS, MLP, name="two")
    other = client.model("gpt2", model.processing)
    for bad, words in [
        (cupola.Mean(RESID, "no such"), ['"no such" is no stored mean', '"known"']),
        # Of another shape, of two other points, of another model.
        (cupola.Mean("blocks.0.mlp.hook_post", "known"), ["shape [32]", "mlp.hook_post"]),
        (cupola.Mean(RESID, "two"), ["one of", Z, MLP]),
    ]:
        refused(lambda: model.run(PROMPTS, [good, bad]), "interventions[1].value", *words)
    refused(lambda: other.run(PROMPTS, [cupola.Mean(RESID, "known")]),
            "interventions[0].value")
    with pytest.raises(cupola.NotFound):
        model.mean_activation(PROMPTS, "blocks.1.hook_nothing")


def test_means_outlive_the_server(zoo, tmp_path):
    with Server(tmp_path, zoo.catalog()) as server:
        with cupola.connect(server.grpc) as client:
            model = client.model("gpt2")
            mean = model.mean_activation(PROMPTS, RESID, name="kept")
            expected = model.run(PROMPTS, [cupola.Mean(RESID, "kept")])
        server.kill()
    with Server(tmp_path, zoo.catalog()) as server:
        with cupola.connect(server.grpc) as client:
            model = client.model("gpt2")
            assert [m.digest for m in model.means()] == [mean.stored.digest]
            client.clear_cache()
            found = model.run(PROMPTS, [cupola.Mean(RESID, "kept")])
            assert not found.from_cache
            for a, b in zip(found.loss, expected.loss):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
