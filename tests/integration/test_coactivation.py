"""The job "coactivation": counts and correlations of all pairs of latents
against NumPy on the dictionary's own features, samples, shards, bad input."""

import cupola
import numpy as np
import pandas as pd
import pytest
from harness.server import Server, catalog_text
from harness.zoo import D_MODEL, HOOK, make_dictionaries, make_models

SAE = "tiny/sae"


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(11)
    return [random.integers(3, 90, size=int(n)).tolist() for n in random.integers(3, 20, size=40)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = make_models.make("gpt_neox", folder / "model")
    sae = make_dictionaries.make(
        "standard", folder / "sae", d_in=D_MODEL, hook_name=HOOK, seed=1
    )
    catalog = catalog_text({"tiny": model}, {SAE: ("tiny", sae)})
    with Server(tmp_path_factory.mktemp("pairs"), catalog) as server:
        server.wait_until_loaded()
        yield server


@pytest.fixture(scope="module")
def client(server, rows):
    with cupola.connect(server.grpc) as client:
        client.dataset("corpus", rows)
        yield client


@pytest.fixture(scope="module")
def corpus(client):
    return client.dataset("corpus").select("tiny")


@pytest.fixture(scope="module")
def acts(client, rows):
    return client.dictionary(SAE).features(rows).csr.toarray().astype(np.float64)


def measures(acts):
    """The definitions, dense: notebook D's statistics, SciPy-free."""
    n, on = len(acts), (acts > 0).astype(np.float64)
    both = on.T @ on
    count = np.diag(both)
    p, joint = count / n, both / n
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = joint - np.outer(p, p)
        found = {
            "count": both,
            "probability": joint,
            "upstream": excess / np.sqrt(np.outer(p * (1 - p), p)),
            "phi": excess / np.sqrt(np.outer(p * (1 - p), p * (1 - p))),
            "pearson": np.corrcoef(acts.T),
            "jaccard": both / (count[:, None] + count[None, :] - both),
            "cosine": (acts.T @ acts)
            / np.outer(*[np.linalg.norm(acts, axis=0)] * 2),
        }
    return {name: np.nan_to_num(value, nan=0, posinf=0) for name, value in found.items()}


def result(job):
    job.wait(progress=False)
    return job.result()


@pytest.fixture(scope="module")
def pairs(client, corpus):
    return result(client.dictionary(SAE).coactivation(corpus, chunk_tokens=50))


def test_every_measure_of_every_pair(pairs, acts):
    assert pairs.exact and pairs.tokens == len(acts) and pairs.d_sae == acts.shape[1]
    everyone = list(range(pairs.d_sae))
    wanted = measures(acts)
    for name, value in wanted.items():
        np.testing.assert_allclose(
            pairs.between(everyone, measure=name), value, rtol=1e-5, atol=1e-6, err_msg=name
        )
        matrix = pairs.matrix(name)
        there = wanted["count"] > 0
        np.testing.assert_allclose(
            matrix.toarray(), np.where(there, value, 0), rtol=1e-5, atol=1e-6, err_msg=name
        )
        assert matrix.nnz == there.sum()
    assert np.abs(wanted["upstream"] - wanted["upstream"].T).max() > 0.01
    np.testing.assert_array_equal(pairs.between(everyone), wanted["count"])


def test_parts_of_the_matrix(pairs, acts):
    wanted = measures(acts)
    np.testing.assert_allclose(
        pairs.between([3, 9], [1, 3, 0], "phi"), wanted["phi"][np.ix_([3, 9], [1, 3, 0])], atol=1e-6
    )
    assert pairs.between(3, 9) == wanted["count"][3, 9]
    assert pairs.between(3, [9, 2]).shape == (2,)
    often = pairs.matrix(min_count=20)
    np.testing.assert_array_equal(
        often.toarray(), np.where(wanted["count"] >= 20, wanted["count"], 0)
    )


def best(value, count, latent, top):
    others = [
        b for b in np.argsort(-value[latent], kind="stable") if b != latent and count[latent, b] > 0
    ]
    return others[:top]


@pytest.mark.parametrize("measure", ["count", "jaccard", "upstream"])
def test_partners(pairs, acts, measure):
    wanted = measures(acts)
    table = pairs.partners([5, 0, 7], top=4, measure=measure)
    for latent in (5, 0, 7):
        mine = table[table["latent"] == latent]
        expected = best(np.round(wanted[measure], 12), wanted["count"], latent, 4)
        np.testing.assert_array_equal(mine["rank"], range(len(expected)))
        np.testing.assert_allclose(mine["value"], wanted[measure][latent, expected], atol=1e-9)
        np.testing.assert_array_equal(
            mine["count"], wanted["count"][latent, mine["partner"].to_numpy()]
        )
    everyone = pairs.partners(top=2, measure=measure)
    pd.testing.assert_frame_equal(
        everyone[everyone["latent"] == 7].reset_index(drop=True),
        pairs.partners(7, top=2, measure=measure),
    )


def test_a_sample_of_everything_is_exact_and_a_small_one_near(client, corpus, pairs, acts):
    sae, wanted = client.dictionary(SAE), measures(acts)
    everyone = list(range(pairs.d_sae))
    whole = result(sae.coactivation(corpus, sample=len(acts)))
    assert not whole.exact and whole.sample == len(acts)
    np.testing.assert_array_equal(whole.between(everyone), wanted["count"])
    pd.testing.assert_frame_equal(
        whole.partners([5, 0], 4, "phi"), pairs.partners([5, 0], 4, "phi")
    )
    some = result(sae.coactivation(corpus, sample=60))
    off = some.between(everyone, measure="jaccard") - wanted["jaccard"]
    spread = np.sqrt(wanted["jaccard"] * (1 - wanted["jaccard"]) / 60)
    assert np.mean(np.abs(off) > 4 * spread + 0.01) < 0.01
    top = some.matrix("jaccard", top=3).tocsr()
    assert top.shape == (pairs.d_sae, pairs.d_sae)
    assert np.diff(top.indptr).max() <= 3
    with pytest.raises(cupola.InvalidArgument, match="kept no products of activations"):
        some.between([1], [2], "pearson")
    with pytest.raises(cupola.InvalidArgument, match="sampled tokens and has no matrix"):
        some.matrix()
    counts = result(sae.coactivation(corpus, products=False))
    np.testing.assert_array_equal(counts.between(everyone), wanted["count"])
    with pytest.raises(cupola.InvalidArgument, match="kept no products of activations"):
        counts.matrix("cosine")


@pytest.mark.parametrize("sample", [0, 30])
def test_shards_merge_into_what_one_job_is(client, corpus, tmp_path, sample):
    def submit(**options):
        return client.submit(
            "coactivation", SAE, corpus, sample=sample, chunk_tokens=40, **options
        )

    whole = result(submit())
    paths = []
    for index in range(3):
        job = submit(shard=(index, 3))
        job.wait(progress=False)
        paths.append(tmp_path / f"{sample}.{index}")
        job.save_shard(paths[-1])
    merged = client.merge_shards(paths).result()
    everyone = list(range(whole.d_sae))
    assert merged.tokens == whole.tokens
    np.testing.assert_array_equal(merged.between(everyone), whole.between(everyone))
    if sample == 0:
        np.testing.assert_allclose(
            merged.between(everyone, measure="cosine"),
            whole.between(everyone, measure="cosine"),
            rtol=1e-6,
        )
    pd.testing.assert_frame_equal(merged.partners(top=3), whole.partners(top=3))


def test_bad_input(client, corpus, pairs):
    sae = client.dictionary(SAE)
    for options, said in [
        (dict(sample=-1), "sample is -1; accepted: 0 to 65536"),
        (dict(sample=10**6), "sample is 1000000; accepted"),
        (dict(chunk_tokens=10**9), "chunk_tokens is 1000000000; accepted"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=said):
            sae.coactivation(corpus, **options)
    with pytest.raises(cupola.InvalidArgument, match="measure: expected 'count' or"):
        pairs.between(0, 1, "kappa")
    outside = pairs.d_sae
    for ask, said in [
        (lambda: pairs.between([outside], [0]), f"a: {outside}; accepted: 0 to {outside - 1}"),
        (lambda: pairs.between(0, outside), f"b: {outside}; accepted"),
        (lambda: pairs.partners(outside), f"latents: {outside}; accepted"),
        (lambda: pairs.between([0] * (outside + 1)), "accepted: as many as there are"),
        (lambda: pairs._fetch(top=outside, latents=[0]), f"top is {outside}; accepted"),
        (lambda: pairs._fetch(matrix=True, first=-1), "first: -1; accepted"),
        (lambda: pairs._fetch(matrix=True, min_count=-2), "min_count is -2; accepted"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=said):
            ask()
    statistics = sae.statistics(corpus)
    statistics.wait(progress=False)
    with pytest.raises(cupola.InvalidArgument, match="feature_statistics"):
        cupola.Coactivation(client, statistics.id)
