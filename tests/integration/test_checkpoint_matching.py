"""A job over the SAEs of many checkpoints, each with a model of its own, more
of them than the memory holds: against the features of each."""

import cupola
import numpy as np
import pytest
import scipy.optimize
from harness import checkpoints
from harness.server import Server, catalog_text

COUNT, D_SAE, HELD = 20, 96, 4
THRESHOLDS = [0.3, 0.6, 0.8, 0.95]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    models, dictionaries = checkpoints.make(folder, COUNT, d_sae=D_SAE)
    small = {**checkpoints.NARROW, "vocab_size": 60, "max_position_embeddings": 32}
    narrow, of_narrow = checkpoints.make(folder / "small", 1, small, d_sae=D_SAE)
    models["small"] = narrow["m0"]
    dictionaries["small/sae"] = ("small", of_narrow["m0/sae"][1])
    return catalog_text(models, dictionaries)


@pytest.fixture(scope="module")
def client(catalog, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("all"), catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as connected:
            (memory,) = connected.device_memory()
            all_bytes = memory.used_bytes
    budget = HELD * all_bytes // (COUNT + 1) + 4096
    flags = [f"--device_memory={budget}", "--min_residency_seconds=0"]
    folder = tmp_path_factory.mktemp("some")
    with Server(folder, catalog, *flags, "--no-self_check") as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as connected:
            yield connected


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(3)
    return [random.integers(1, 200, size=n).tolist() for n in (60, 64, 33, 50)]


OTHERS = [f"m{i}/sae" for i in range(COUNT - 1)]


@pytest.fixture(scope="module")
def matching(client, prompts):
    last = client.dictionary(f"m{COUNT - 1}/sae")
    job = last.match(OTHERS, prompts, chunk_tokens=120, dtype="float64")
    assert job.wait().state == "done"
    assert list(job.info.provenance.dictionaries) == [last.name, *OTHERS]
    return job.result()


@pytest.fixture(scope="module")
def dense(client, prompts):
    return [
        client.dictionary(f"m{i}/sae").features(prompts).csr.toarray().astype(float)
        for i in range(COUNT)
    ]


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=0), 1e-30)


def test_they_were_not_all_there(client):
    states = [entry.state for entry in client.dictionaries()]
    assert states.count("resident") <= HELD + 1
    assert "failed" not in states


@pytest.fixture(scope="module")
def oracle(dense):
    """Of each other: cosines, the assignment, and which of it are dead, by the
    published rule and by the correct one."""
    a = dense[-1]
    dead_a = ~(a > 0).any(axis=0)
    of_others = []
    for b in dense[:-1]:
        cosines = unit(a).T @ unit(b)
        _, matched = scipy.optimize.linear_sum_assignment(-cosines)
        dead_b = ~(b > 0).any(axis=0)
        of_others.append((cosines, matched, dead_a | dead_b, dead_a | dead_b[matched]))
    return dead_a, of_others


@pytest.mark.parametrize("policy", ["correct", "upstream"])
def test_every_checkpoint_is_matched_as_scipy_does(oracle, matching, policy):
    dead_a, of_others = oracle
    near = []
    for i, (cosines, matched, upstream, correct) in enumerate(of_others):
        np.testing.assert_allclose(
            matching.cosines(range(D_SAE), i), cosines, atol=5e-5, rtol=0
        )
        mine = matching.match(i, dead=policy)
        assert sorted(mine.matched) == list(range(D_SAE))
        latents = np.arange(D_SAE)
        assert abs(cosines[latents, mine.matched].sum()
                   - cosines[latents, matched].sum()) < 1e-4
        # Of several assignments as good, the same pairs of latents that fire.
        fires = cosines[latents, matched] > 0
        same = mine.matched == matched
        assert same[fires].mean() > 0.95
        dead = correct if policy == "correct" else upstream
        distances = 1 - cosines[latents, matched]
        distances[dead] = np.nan if policy == "correct" else -1
        np.testing.assert_allclose(
            mine.distances[same], distances[same], atol=5e-5, rtol=0
        )
        counted = (~dead_a).sum() if policy == "correct" else D_SAE
        assert mine.counted == counted
        expected = [(mine.distances < t).sum() / counted for t in THRESHOLDS]
        np.testing.assert_allclose(
            matching.fractions(THRESHOLDS, i, dead=policy), expected, rtol=1e-12
        )
        near.append(mine.distances < 0.8)
    near = np.stack(near)
    assert near.any() and not near.all()
    for at in (0, 1, 18):
        expected = ~near[:at].any(axis=0) & near[at:].all(axis=0)
        np.testing.assert_array_equal(
            matching.appearing(at, 0.8, dead=policy), np.flatnonzero(expected)
        )


def test_rows_that_a_model_cannot_read_are_refused(client, prompts):
    sae = client.dictionary("m0/sae")
    with pytest.raises(
        cupola.InvalidArgument,
        match=r'prompts\[0\] is looked at up to its token 59; the context of '
        '"small" is 32',
    ):
        sae.match(["small/sae"], prompts)
    with pytest.raises(
        cupola.InvalidArgument,
        match=r'prompts\[1\]: token id 60 at position 2 is outside the '
        r'vocabulary of "small" \(0 to 59\)',
    ):
        sae.match(["small/sae"], [[1, 2, 3], [59, 3, 60, 60]])
    corpus = client.dataset("ids", [[1, 2, 3], [5, 6, 7, 60], [1] * 40])
    with pytest.raises(cupola.InvalidArgument, match="row 2 is looked at up to its"):
        sae.match(["m1/sae", "small/sae"], corpus.select("m0"))
    with pytest.raises(cupola.InvalidArgument, match="row 1: token id 60 at position 3"):
        sae.match(["small/sae"], corpus.select("m0", rows=2))
    # Tokens behind the last that is looked at are read by nobody.
    job = sae.match(["small/sae"], corpus.select("m0"), positions=[0, 2])
    assert job.wait().tokens_done == 6
    corpus.delete()
