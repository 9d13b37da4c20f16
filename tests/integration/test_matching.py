"""match_features from end to end: against cosines of the features that the
server answers with, and SciPy's assignment."""

import cupola
import numpy as np
import pytest
import sae_lens
import scipy.optimize
from harness.server import Server, catalog_text
from harness.zoo import D_MODEL, make_dictionaries, make_models

HOOK = "blocks.1.hook_resid_pre"
D_SAE = 70
NAMES = ["tiny/last", "tiny/first", "tiny/second", "tiny/small"]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = make_models.make("gpt_neox", folder / "model")
    entries = {}
    for seed, name in enumerate(NAMES):
        path = make_dictionaries.make(
            "topk",
            folder / name.replace("/", "-"),
            d_in=D_MODEL,
            d_sae=50 if name.endswith("small") else D_SAE,
            k=6,
            hook_name=HOOK,
            seed=seed + 1,
        )
        entries[name] = ("tiny", path)
    catalog = catalog_text({"tiny": model}, entries)
    with Server(tmp_path_factory.mktemp("matching"), catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            yield client


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(5)
    return [random.integers(3, 90, size=n).tolist() for n in (30, 14, 45, 11, 50, 7)]


def dense(client, name, prompts, **options):
    features = client.dictionary(name).features(prompts, **options)
    return features.csr.toarray().astype(np.float64)


def cosines(a, b):
    def unit(x):
        return x / np.maximum(np.linalg.norm(x, axis=0), 1e-30)

    return unit(a).T @ unit(b)


def close(values, expected, bound=5e-5):
    np.testing.assert_allclose(values, expected, atol=bound, rtol=0)


@pytest.fixture(scope="module")
def matching(client, prompts):
    job = client.dictionary(NAMES[0]).match(NAMES[1:], prompts, chunk_tokens=60)
    assert job.info.kind == "match_features"
    assert job.info.chunks > 2
    assert job.wait().tokens_done == sum(map(len, prompts))
    return job.result()


@pytest.mark.parametrize("other", [0, 1, 2])
def test_cosines_and_assignments_are_the_oracles(client, prompts, matching, other):
    a = dense(client, NAMES[0], prompts)
    b = dense(client, NAMES[1 + other], prompts)
    expected = cosines(a, b)
    assert matching.tokens == len(a)
    close(matching.cosines(range(D_SAE), other), expected)
    close(matching.cosines(3, other), expected[3])

    matched = matching.match(other)
    rows, columns = scipy.optimize.linear_sum_assignment(expected, maximize=True)
    pairs = np.flatnonzero(matched.matched >= 0)
    assert len(pairs) == len(rows)
    assert len(set(matched.matched[pairs])) == len(pairs)
    assert abs(expected[pairs, matched.matched[pairs]].sum()
               - expected[rows, columns].sum()) < 1e-4

    # A pair is dead through the assignment.
    dead_a, dead_b = ~(a > 0).any(axis=0), ~(b > 0).any(axis=0)
    dead = dead_a | (matched.matched < 0) | dead_b[matched.matched]
    assert dead.any() and not dead.all()
    np.testing.assert_array_equal(np.isnan(matched.distances), dead)
    live = np.flatnonzero(~dead)
    close(matched.distances[live], 1 - expected[live, matched.matched[live]])
    assert matched.counted == (~dead_a).sum()
    thresholds = [0.2, 0.6, 0.95]
    below = [(matched.distances[live] < t).sum() for t in thresholds]
    close(matching.fractions(thresholds, other), np.array(below) / (~dead_a).sum(), 1e-12)


def test_upstreams_dead_are_matched_by_index(client, prompts, matching):
    a = dense(client, NAMES[0], prompts)
    b = dense(client, NAMES[1], prompts)
    dead = ~(a > 0).any(axis=0) | ~(b > 0).any(axis=0)
    matched = matching.match(0, dead="upstream")
    np.testing.assert_array_equal(matched.distances == -1, dead)
    close(
        matching.fractions([0.5], dead="upstream"),
        [(matched.distances < 0.5).mean()],
        1e-12,
    )
    with pytest.raises(cupola.InvalidArgument, match="not 70 and 50; accepted: correct"):
        matching.match(2, dead="upstream")


def test_the_most_alike_are_the_largest_cosines(matching):
    rows = [0, 5, 9]
    all_of = matching.cosines(rows, 1)
    alike, values = matching.most_alike(rows, 4, 1)
    order = np.argsort(-all_of, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(alike, order)
    np.testing.assert_array_equal(values, np.take_along_axis(all_of, order, axis=1))


def test_features_appear_where_they_stay(matching):
    near = np.stack([matching.match(i).distances < 0.9 for i in range(3)])
    for at in range(3):
        expected = ~near[:at].any(axis=0) & near[at:].all(axis=0)
        np.testing.assert_array_equal(
            matching.appearing(at, 0.9), np.flatnonzero(expected)
        )


def test_a_dictionary_is_put_into_the_others_order(client, prompts):
    last = client.dictionary(NAMES[0])
    matching = last.match([last], prompts, positions=[1, -1], dtype="float64").result()
    assert matching.tokens == 2 * len(prompts)
    matched = matching.match()
    a = dense(client, NAMES[0], prompts, positions=[1, -1])
    live = (a > 0).any(axis=0)
    close(matched.distances[live], 0)
    vectors = last.weight("W_dec")
    close(
        matched.decoder_cosines(vectors, vectors)[live & (matched.matched == np.arange(D_SAE))],
        1,
    )
    permuted = matched.permute(vectors)
    np.testing.assert_array_equal(permuted, vectors[matched.matched])


@pytest.fixture(scope="module")
def every_architecture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("every")
    model = make_models.make("gpt_neox", folder / "model")
    kinds = {
        "standard": {"normalize_activations": "layer_norm"},
        "gated": {},
        "jumprelu": {"apply_b_dec_to_input": True},
        "topk": {"k": 6},
        "jumprelu_skip_transcoder": {"hook_name_out": "blocks.1.hook_mlp_out"},
        "matching_pursuit": {},
    }
    entries = {
        f"tiny/{kind}": (
            "tiny",
            make_dictionaries.make(
                kind, folder / kind, d_in=D_MODEL, d_sae=40, hook_name=HOOK, **extra
            ),
        )
        for kind, extra in kinds.items()
    }
    return {"tiny": model}, entries


def test_permuted_dictionaries_load_again(every_architecture, tmp_path, prompts):
    """What was written is, latent by latent, what was asked for: in a server,
    and in SAELens where it knows the architecture."""
    models, entries = every_architecture
    order = np.random.default_rng(8).permutation(40)
    written = {}
    with Server(tmp_path / "first", catalog_text(models, entries)) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            expected = {}
            for name in list(entries)[:-1]:
                sae = client.dictionary(name)
                expected[name] = sae.features(prompts), sae.reconstruct(prompts)
                folder = sae.save_saelens(tmp_path / name.replace("/", "-"), order)
                written[name] = ("tiny", folder)
            pursuit = client.dictionary("tiny/matching_pursuit")
            with pytest.raises(cupola.InvalidArgument, match="accepted: SAEs and"):
                pursuit.save_saelens(tmp_path / "none")
            with pytest.raises(cupola.InvalidArgument, match="40; accepted: 0 to 39"):
                sae.save_saelens(tmp_path / "none", [1, 40])
            with pytest.raises(cupola.InvalidArgument, match="accepted: a list"):
                sae.save_saelens(tmp_path / "none", [0.5])
            assert not (tmp_path / "none").exists()
    with Server(tmp_path / "second", catalog_text(models, written)) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            for name, (features, reconstruction) in expected.items():
                again = client.dictionary(name)
                close(
                    again.features(prompts).csr.toarray(),
                    features.csr.toarray()[:, order],
                    5e-5 * features.csr.max(),
                )
                close(
                    again.reconstruct(prompts).reconstruction,
                    reconstruction.reconstruction,
                    5e-5 * np.abs(reconstruction.reconstruction).max(),
                )
    for name in ("standard", "gated", "jumprelu", "topk"):
        folder = written[f"tiny/{name}"][1]
        sae = sae_lens.SAE.load_from_disk(str(folder), device="cpu")
        assert sae.cfg.architecture() == name
        assert sae.W_dec.shape == (40, D_MODEL)


def test_a_matched_dictionary_is_written_in_order(client, matching, tmp_path):
    matched = matching.match(1).matched
    folder = matching.save_permuted(tmp_path / "b", 1)
    written = sae_lens.SAE.load_from_disk(str(folder), device="cpu")
    close(
        written.W_dec.detach().numpy(),
        client.dictionary(NAMES[2]).weight("W_dec")[matched],
        1e-6,
    )
    with pytest.raises(cupola.InvalidArgument, match="20 latents of A have no match"):
        matching.save_permuted(tmp_path / "small", 2)


def test_refusals(client, prompts, matching):
    last = client.dictionary(NAMES[0])
    with pytest.raises(cupola.InvalidArgument, match="others: 0 dictionaries; accepted: 1"):
        last.match([], prompts)
    with pytest.raises(cupola.NotFound, match="tiny/none"):
        last.match(["tiny/none"], prompts)
    with pytest.raises(cupola.InvalidArgument, match="chunk_tokens is -1; accepted: 0"):
        last.match(NAMES[1:], prompts, chunk_tokens=-1)
    with pytest.raises(cupola.InvalidArgument, match="100"):
        last.match(NAMES[1:], prompts, positions=[100])
    with pytest.raises(cupola.InvalidArgument, match="other is 3; accepted: 0 to 2"):
        matching.match(3)
    with pytest.raises(cupola.InvalidArgument, match="rows: 70; accepted: 0 to 69"):
        matching.cosines(70)
    with pytest.raises(cupola.InvalidArgument, match="top is 51; accepted: 0 .all. to 50"):
        matching.most_alike([0], 51, 2)
    with pytest.raises(cupola.InvalidArgument, match="appearing_at is 3; accepted: 0 to 2"):
        matching.appearing(3)
    with pytest.raises(cupola.InvalidArgument, match="thresholds: nan; accepted: finite"):
        matching.fractions([0.5, np.nan])
    with pytest.raises(cupola.InvalidArgument, match="appearing_threshold is inf; accepted"):
        matching.appearing(0, np.inf)
    with pytest.raises(cupola.InvalidArgument, match="rows: 71 latents; accepted: as many"):
        matching.cosines([0] * 71)
    with pytest.raises(cupola.InvalidArgument, match="accepted: correct"):
        matching.appearing(0, dead="upstream")
    with pytest.raises(cupola.InvalidArgument, match="dtype"):
        last.match(NAMES[1:], prompts, dtype="float16")


def test_sums_are_of_float64_where_that_fits(client, prompts, matching):
    last = client.dictionary(NAMES[0])
    assert matching.dtype == "float64"
    narrow = last.match(NAMES[1:], prompts, dtype="float32").result()
    assert narrow.dtype == "float32"
    close(narrow.cosines(range(70)), matching.cosines(range(70)), 1e-6)


def test_a_cancelled_job_goes_on_to_the_same_bits(client, prompts):
    last = client.dictionary(NAMES[0])
    straight = last.match(NAMES[1:2], prompts * 30, chunk_tokens=100).result()
    job = last.match(NAMES[1:2], prompts * 30, chunk_tokens=100)
    for info in job.watch():
        if info.chunks_done > 3:
            break
    job.cancel()
    if job.info.state == "cancelled":
        assert job.result().tokens <= straight.tokens
        job.resume()
    job.wait()
    resumed = job.result()
    assert resumed.tokens == straight.tokens
    np.testing.assert_array_equal(
        resumed.cosines(range(D_SAE)), straight.cosines(range(D_SAE))
    )


def test_shards_of_a_dataset_merge_to_the_whole(client, prompts, tmp_path):
    rows = client.dataset("corpus", prompts * 4).select("tiny")
    last = client.dictionary(NAMES[0])
    whole = last.match(NAMES[1:3], rows, chunk_tokens=100).result()
    paths = []
    for i in range(2):
        job = last.match(NAMES[1:3], rows, chunk_tokens=100, shard=(i, 2))
        job.wait()
        paths.append(tmp_path / f"{i}.shard")
        job.save_shard(paths[-1])
    merged = client.merge_shards(paths).result()
    assert merged.tokens == whole.tokens == 4 * sum(map(len, prompts))
    for other in range(2):
        close(
            merged.cosines(range(D_SAE), other),
            whole.cosines(range(D_SAE), other),
            1e-6,
        )
    np.testing.assert_array_equal(
        np.isnan(merged.match(1).distances), np.isnan(whole.match(1).distances)
    )
    submitted = client.submit(
        "match_features", NAMES[0], rows, others=NAMES[1:2], name="first"
    )
    assert submitted.result().tokens == whole.tokens
    assert submitted.info.provenance.dictionaries.keys() == set(NAMES[:2])


def test_memory_of_jobs_is_bounded(tmp_path_factory, prompts, tmp_path):
    """Of states of 64 MiB and more there is room for one: whoever comes next
    gets it, and a job for which there is none at all says so."""
    folder = tmp_path_factory.mktemp("bounded")
    model = make_models.make("gpt_neox", folder / "model")
    path = make_dictionaries.make(
        "topk", folder / "sae", d_in=D_MODEL, d_sae=D_SAE, k=6, hook_name=HOOK
    )
    catalog = catalog_text({"tiny": model}, {"tiny/sae": ("tiny", path)})
    with Server(tmp_path / "one", catalog, "--job_memory=100M") as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary("tiny/sae")
            first = sae.match([sae], prompts).result()
            cosines = first.cosines(3)
            second = sae.match([sae], prompts[:2]).result()
            for _ in range(2):
                np.testing.assert_array_equal(first.cosines(3), cosines)
                assert 0 < second.match().counted <= first.match().counted
    with Server(tmp_path / "none", catalog, "--job_memory=10M") as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary("tiny/sae")
            job = sae.match([sae], prompts)
            with pytest.raises(cupola.CupolaError, match="bytes of memory, and others"):
                job.wait()
            assert job.refresh().chunks_saved == 0
            assert sae.statistics(prompts).wait().state == "done"
