"""Jobs over datasets: feature statistics against NumPy, Jacobian totals against
those of prompts, shards against one job, and what goes wrong."""

import subprocess
import sys

import cupola
import numpy as np
import pandas as pd
import pytest
from harness.server import Server, catalog_text
from harness.zoo import D_MODEL, HOOK, make_dictionaries, make_models

SAE, PAIR = "tiny/sae", "tiny/pair"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = make_models.make("gpt_neox", folder / "model")
    sae = make_dictionaries.make(
        "standard", folder / "sae", d_in=D_MODEL, hook_name=HOOK, seed=1
    )
    pair = make_dictionaries.make_pair(
        folder / "pair",
        d_in=D_MODEL,
        d_sae=90,
        k=10,
        hook_name="blocks.1.ln2.hook_normalized",
        seed=3,
    )
    return catalog_text({"tiny": model}, {SAE: ("tiny", sae), PAIR: ("tiny", pair)})


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(5)
    return [random.integers(3, 90, size=n).tolist() for n in (9, 14, 5, 11, 12, 7, 3, 8)]


@pytest.fixture(scope="module")
def server(catalog, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("corpus"), catalog) as server:
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


def expected(client, rows, top_k, skip=0, dictionary=SAE):
    """The statistics' definition, of the dictionary's own features."""
    features = client.dictionary(dictionary).features(rows)
    keep = features.position >= skip
    acts = features.csr.toarray().astype(np.float64)[keep]
    row, position = features.prompt[keep], features.position[keep]
    count = (acts > 0).sum(0)
    top = []
    for latent in range(acts.shape[1]):
        on = np.flatnonzero(acts[:, latent] > 0)
        order = sorted(on, key=lambda t: (-acts[t, latent], row[t], position[t]))
        seen, best = set(), []
        for token in order:
            if row[token] not in seen and len(best) < top_k:
                seen.add(row[token])
                best.append((row[token], position[token], acts[token, latent]))
        top.append(best)
    return acts, count, top


def check(statistics, wanted):
    acts, count, top = wanted
    table = statistics.to_dataframe()
    assert statistics.tokens == len(acts)
    assert statistics.d_sae == acts.shape[1]
    np.testing.assert_array_equal(table["count"], count)
    np.testing.assert_allclose(table["density"], count / len(acts))
    mean = acts.sum(0) / np.maximum(count, 1)
    np.testing.assert_allclose(table["mean"], mean, atol=5e-5 * acts.max())
    np.testing.assert_allclose(table["max"], acts.max(0), atol=5e-5 * acts.max())
    np.testing.assert_allclose(
        statistics.power_sums()[:, 1], (acts**2).sum(0), rtol=1e-4
    )
    np.testing.assert_array_equal(statistics.dead_latents(), np.flatnonzero(count == 0))
    assert statistics.dead == (count == 0).sum()
    found = statistics.top()
    for latent, best in enumerate(top):
        mine = found[found["latent"] == latent]
        np.testing.assert_array_equal(mine["row"], [r for r, _, _ in best])
        np.testing.assert_array_equal(mine["position"], [p for _, p, _ in best])
    counts, edges = statistics.histogram()
    for latent in (0, 7):
        active = acts[acts[:, latent] > 0, latent].astype(np.float32)
        np.testing.assert_array_equal(
            counts[latent],
            np.bincount(np.searchsorted(edges, active, side="right"), minlength=len(edges) + 1),
        )
    drawn = statistics.intervals(intervals=4, each=2)
    step = acts.max(0) / 4
    for one in drawn.itertuples():
        assert one.value > 0
        assert min(int(one.value / step[one.latent]), 3) == one.interval


@pytest.mark.parametrize("source", ["prompts", "dataset"])
def test_feature_statistics(client, corpus, rows, source):
    sae = client.dictionary(SAE)
    job = sae.statistics(
        corpus if source == "dataset" else rows, top_k=3, chunk_tokens=10
    )
    assert job.info.kind == "feature_statistics"
    assert (job.info.tokens, job.info.chunks) == (69, 7)
    job.wait(progress=False)
    check(job.result(), expected(client, rows, 3))
    told = job.info.provenance
    assert told.model == "tiny" and list(told.dictionaries) == [SAE]
    assert told.dictionaries[SAE] == sae.info.digest
    assert told.parameters["top_k"] == 3
    assert told.parameters.get("rows") == (
        {"first_row": 0, "row_count": len(rows), "skip": 0}
        if source == "dataset"
        else None
    )
    assert told.dataset == ("corpus" if source == "dataset" else None)
    part = job.result().to_dataframe(5, 3)
    assert part["latent"].tolist() == [5, 6, 7]
    pd.testing.assert_frame_equal(
        part, job.result().to_dataframe()[5:8].reset_index(drop=True)
    )
    with pytest.raises(cupola.InvalidArgument, match="latents from 0 to"):
        job.result().to_dataframe(10**6)
    job.delete()


def test_one_pass_for_several_dictionaries(client, corpus, rows, tmp_path):
    sae, names = client.dictionary(SAE), [SAE, f"{PAIR}:out", f"{PAIR}:in"]

    def submit(**options):
        return sae.statistics(
            corpus, top_k=3, others=names[1:], chunk_tokens=10, **options
        )

    job = submit()
    job.wait(progress=False)
    told = job.info.provenance
    assert list(told.dictionaries) == names and told.parameters["others"] == names[1:]
    statistics = job.result()
    assert statistics.dictionaries == names
    for name in names:
        check(statistics.of(name), expected(client, rows, 3, dictionary=name))
    with pytest.raises(cupola.InvalidArgument, match="'tiny/none' is not one of the job's"):
        statistics.of("tiny/none")
    with pytest.raises(cupola.InvalidArgument, match="dictionary is 3; accepted: 0 to 2"):
        cupola.FeatureStatistics(client, job.id, 3)
    paths = []
    for index in range(2):
        part = submit(shard=(index, 2))
        part.wait(progress=False)
        paths.append(tmp_path / str(index))
        part.save_shard(paths[-1])
    merged = client.merge_shards(paths).result()
    for name in names:
        pd.testing.assert_frame_equal(merged.of(name).top(), statistics.of(name).top())
    for others, said in [
        ([SAE], "tiny/sae comes twice; accepted: each dictionary once"),
        ([f"{PAIR}:in"] * 65, "65 dictionaries; accepted: 0 to 64"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=said):
            sae.statistics(corpus, others=others)
    with pytest.raises(cupola.NotFound):
        sae.statistics(corpus, others=["tiny/none"])


def test_positions_left_out_and_packed_rows(client, rows):
    sae, dataset = client.dictionary(SAE), client.dataset("corpus")
    job = sae.statistics(dataset.select("tiny", skip_positions=2), top_k=2)
    job.wait()
    check(job.result(), expected(client, rows, 2, skip=2))
    how = dict(packed=True, row_tokens=16, separator="none", bos="none")
    packed = dataset.tokens(dataset.tokenize("tiny", **how).tokenization, 0, 99)
    assert sum(packed, []) == sum(rows, [])
    job = sae.statistics(dataset.select("tiny", **how), top_k=2)
    job.wait()
    check(job.result(), expected(client, packed, 2))
    some = sae.statistics(dataset.select("tiny", first_row=2, rows=3), top_k=2)
    some.wait()
    acts, count, top = expected(client, rows[2:5], 2)
    top = [[(r + 2, p, v) for r, p, v in best] for best in top]
    check(some.result(), (acts, count, top))


def test_jacobian_totals_of_a_dataset_are_those_of_its_prompts(client, corpus, rows):
    pair = client.pair(PAIR)
    for positions in (None, [1, -1]):
        jobs = [
            pair.accumulate(source, positions, chunk_tokens=7, dtype="float64")
            for source in (rows, corpus)
        ]
        one, other = (job.wait() and job.result() for job in jobs)
        assert one.tokens == other.tokens
        np.testing.assert_array_equal(one.active(), other.active())
        np.testing.assert_array_equal(one.histogram()[0], other.histogram()[0])
        outs = np.flatnonzero(one.active())[:9].tolist()
        np.testing.assert_array_equal(one.rows(outs, "sum"), other.rows(outs, "sum"))
    with pytest.raises(cupola.InvalidArgument, match=r"positions: 4 is outside row 6"):
        pair.accumulate(corpus, [4])
    for source, said in [
        (corpus, "positions: token 1 of row 6, which has 3 tokens, comes twice"),
        (rows, r"positions: token 1 of prompts\[6\], which has 3 tokens, comes twice"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=said):
            pair.accumulate(source, [1, -2])


@pytest.mark.parametrize("count", [2, 5])
def test_shards_merge_into_what_one_job_is(client, corpus, tmp_path, count):
    for kind, dictionary, options in [
        ("feature_statistics", SAE, dict(top_k=3, chunk_tokens=5)),
        ("accumulate_jacobian", PAIR, dict(chunk_tokens=5, dtype="float64")),
    ]:
        whole = client.submit(kind, dictionary, corpus, **options)
        whole.wait()
        paths = []
        for index in range(count):
            job = client.submit(
                kind, dictionary, corpus, shard=(index, count), **options
            )
            job.wait()
            paths.insert(0, tmp_path / f"{kind}.{index}")
            job.save_shard(paths[0])
        with pytest.raises(cupola.InvalidArgument, match=f"of {count}"):
            client.merge_shards(paths[1:])
        merged = client.merge_shards(paths, name=f"{kind} {count}")
        assert merged.info.state == "done"
        assert merged.info.chunks == whole.info.chunks
        assert merged.info.provenance == whole.info.provenance
        one, other = whole.result(), merged.result()
        assert one.tokens == other.tokens
        if kind == "feature_statistics":
            pd.testing.assert_frame_equal(one.top(), other.top())
            pd.testing.assert_frame_equal(one.intervals(), other.intervals())
            a, b = one.to_dataframe(), other.to_dataframe()
            for exact in ("count", "max"):
                np.testing.assert_array_equal(a[exact], b[exact])
            np.testing.assert_allclose(a["mean"], b["mean"], rtol=1e-6)
            np.testing.assert_array_equal(one.histogram()[0], other.histogram()[0])
        else:
            np.testing.assert_array_equal(one.active(), other.active())
            outs = np.flatnonzero(one.active()).tolist()
            for exact in ("count", "max"):
                np.testing.assert_array_equal(
                    one.rows(outs, exact), other.rows(outs, exact)
                )
            np.testing.assert_allclose(
                one.rows(outs, "sum"), other.rows(outs, "sum"), rtol=1e-6
            )


def test_a_damaged_shard_is_refused(client, corpus, tmp_path):
    job = client.dictionary(SAE).statistics(corpus, top_k=2)
    job.wait()
    path = tmp_path / "shard"
    job.save_shard(path)
    whole = path.read_bytes()
    parameter = whole.index(b'"top_k":') + 8
    for at in (3, 9, parameter, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(cupola.CupolaError) as refused:
            client.merge_shards([path])
        assert refused.value.code not in ("INTERNAL", "UNKNOWN", "UNAVAILABLE")
    path.write_bytes(whole)
    assert client.merge_shards([path]).result().tokens == 69


def test_bad_input(client, corpus):
    sae = client.dictionary(SAE)
    job = sae.statistics(corpus, name="mine")
    with pytest.raises(cupola.AlreadyExists, match='a job named "mine"'):
        sae.statistics(corpus, name="mine")
    job.wait()
    with pytest.raises(cupola.FailedPrecondition, match="is done; accepted: one that"):
        job.cancel()
    job.delete()
    for options, said in [
        (dict(top_k=-1), "top_k"),
        (dict(chunk_tokens=10**9), "chunk_tokens is 1000000000; accepted"),
        (dict(octaves=(0, 10**6)), "octaves"),
        (dict(shard=(3, 2)), "options.shard is 3 of 2"),
        (dict(name="a\nb"), "options.name"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=said):
            sae.statistics(corpus, **options)
    dataset = client.dataset("corpus")
    for select, said in [
        (dict(first_row=8), "first_row is 8; accepted: 0 to 7"),
        (dict(rows=9), "row_count is 9; accepted: 0 .all. to 8"),
        (dict(skip_positions=14), "skip_positions is 14; accepted: 0 to 13"),
        (dict(row_tokens=5), "document 0 has 9 tokens; a row takes 5"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=said):
            sae.statistics(dataset.select("tiny", **select))
    with pytest.raises(cupola.NotFound, match='no dataset "nobody"'):
        sae.statistics(cupola.DatasetRows("nobody", cupola.Tokenization("tiny")))
    with pytest.raises(cupola.InvalidArgument, match='dictionary is of "tiny"'):
        sae.statistics(dataset.select("other"))


def test_a_result_outlives_its_dataset_and_a_job_holds_it(client, rows):
    many = client.dataset("many", rows * 300)
    pair = client.pair(PAIR)
    job = pair.accumulate(many.select("tiny"), chunk_tokens=8)
    with pytest.raises(cupola.FailedPrecondition, match="a job that has not ended"):
        many.delete()
    job.cancel()
    many.delete()
    with pytest.raises(cupola.NotFound):
        client.dataset("many")
    job.resume()
    with pytest.raises(cupola.CupolaError, match="upload and tokenize it again"):
        job.wait()
    if job.info.chunks_saved:
        assert job.result().tokens == job.refresh().tokens_done


def test_a_killed_server_goes_on(catalog, tmp_path):
    random = np.random.default_rng(6)
    rows = [random.integers(3, 90, size=8).tolist() for _ in range(160)]
    with Server(tmp_path / "straight", catalog) as server:
        with cupola.connect(server.grpc) as client:
            dataset = client.dataset("many", rows)
            straight = client.submit(
                "feature_statistics", SAE, dataset.select("tiny"), chunk_tokens=8
            )
            straight.wait()
            wanted = straight.result()
            table, top = wanted.to_dataframe(), wanted.top()
    flags = ("--job_checkpoint_seconds=0",)
    server = Server(tmp_path / "killed", catalog, *flags)
    with cupola.connect(server.grpc) as client:
        dataset = client.dataset("many", rows)
        job = client.submit(
            "feature_statistics", SAE, dataset.select("tiny"), chunk_tokens=8
        )
        for info in job.watch(progress=False):
            if info.chunks_saved > 20:
                break
        server.kill()
    with Server(tmp_path / "killed", catalog, *flags) as server:
        with cupola.connect(server.grpc) as client:
            job = client.job(job.id)
            assert job.wait().chunks == straight.info.chunks
            # Of two processes, which may multiply in two ways.
            found = job.result().to_dataframe()
            pd.testing.assert_series_equal(found["count"], table["count"])
            pd.testing.assert_frame_equal(found, table, rtol=1e-4)
            pd.testing.assert_frame_equal(job.result().top(), top, rtol=1e-4)


def test_command_line(server, client, rows, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "cupola", "--server", server.grpc, *arguments]
        return subprocess.run(
            [str(item) for item in command], capture_output=True, text=True
        )

    (tmp_path / "ids.jsonl").write_text("\n".join(map(str, rows)))
    done = run("datasets", "upload", "filed", tmp_path / "ids.jsonl")
    assert done.returncode == 0, done.stderr
    assert client.dataset("filed").info.sha256 == client.dataset("corpus").info.sha256
    assert "filed" in run("datasets", "list").stdout
    for index in range(2):
        done = run(
            "job", "run", "feature_statistics", SAE, "--dataset", "filed",
            "--option", "top_k=3", "--option", "chunk_tokens=10",
            "--shard", f"{index}/2", "--out", tmp_path / f"part{index}",
        )
        assert done.returncode == 0, done.stderr
    done = run("job", "merge", tmp_path / "part0", tmp_path / "part1", "--name", "both")
    assert done.returncode == 0, done.stderr
    (merged,) = [job for job in client.jobs() if job.info.name == "both"]
    check(merged.result(), expected(client, rows, 3))
    assert "both" in run("jobs", "list").stdout
    assert run("jobs", "show", merged.id).returncode == 0
    assert run("jobs", "cancel", merged.id).returncode == 1
    assert run("job", "run", "x", SAE, "--dataset", "filed").returncode == 2
    assert run("datasets", "delete", "filed").returncode == 0
    assert run("datasets", "show", "filed").returncode == 3
