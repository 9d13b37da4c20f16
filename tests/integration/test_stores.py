"""Stored activations from end to end: against the features that the server
answers with, through other jobs that read them, kill -9, damage and quotas."""

import pathlib

import cupola
import numpy as np
import pytest
import xxhash
from harness.server import Server, catalog_text
from harness.zoo import D_MODEL, make_dictionaries, make_models

SAE, OTHER = "tiny/sae", "tiny/other"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = make_models.make("gpt_neox", folder / "model")
    hook = "blocks.1.hook_resid_pre"
    entries = {
        name: (
            "tiny",
            make_dictionaries.make(
                "standard", folder / name, d_in=D_MODEL, hook_name=hook, seed=seed
            ),
        )
        for seed, name in enumerate((SAE, OTHER))
    }
    return catalog_text({"tiny": model}, entries)


@pytest.fixture(scope="module")
def server(catalog, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("stores"), catalog) as server:
        server.wait_until_loaded()
        yield server


@pytest.fixture(scope="module")
def client(server):
    with cupola.connect(server.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(2)
    return [random.integers(3, 90, size=n).tolist() for n in (30, 41, 9, 64, 25) * 4]


@pytest.fixture(scope="module")
def selected(client, rows):
    return client.dataset("corpus", rows).select("tiny", skip_positions=1)


@pytest.fixture(scope="module")
def job(client, selected):
    job = client.submit("store_activations", SAE, selected, chunk_tokens=100)
    job.wait()
    assert job.info.chunks > 5
    return job


@pytest.fixture(scope="module")
def store(job):
    return job.result()


def features(client, rows, name=SAE, **options):
    positions = [list(range(1, len(row))) for row in rows]
    return client.dictionary(name).features(rows, positions=positions, **options)


def files(server):
    return sorted(pathlib.Path(server.folder).rglob("*.activations"))


def test_it_is_the_features_of_every_token(client, rows, store):
    expected = features(client, rows)
    stored = store.csr()
    assert stored.shape == store.shape == expected.csr.shape
    assert stored.nnz == store.info.entries > 0
    np.testing.assert_allclose(
        stored.toarray(),
        expected.csr.toarray(),
        atol=5e-5 * expected.csr.max(),
        rtol=0,
    )
    row, position = store.places()
    np.testing.assert_array_equal(row, expected.prompt)
    np.testing.assert_array_equal(position, expected.position)
    told = store.info
    assert told.complete and told.tokens == told.tokens_there == len(row)
    assert told.provenance.dataset == "corpus"
    assert told.provenance.dictionaries == {SAE: client.describe(SAE).digest}
    assert told.bytes >= 8 * told.entries + 16 * told.tokens


def test_ranges_are_slices_of_the_whole(store):
    whole = store.csr()
    for first, count in ((0, 1), (99, 2), (150, 220), (whole.shape[0] - 3, 3)):
        part = store.csr(first, count)
        assert (part != whole[first : first + count]).nnz == 0
        assert part.shape == (count, whole.shape[1])
        triples = store.coo(first, count)
        np.testing.assert_array_equal(triples.toarray(), part.toarray())
        row, _ = store.places(first, count)
        np.testing.assert_array_equal(row, store.places()[0][first : first + count])
    assert (store.csr(120) != whole[120:]).nnz == 0
    batches = list(store.batches(97))
    assert [b.shape[0] for b in batches[:-1]] == [97] * (len(batches) - 1)
    assert sum(b.shape[0] for b in batches) == whole.shape[0]
    assert (batches[1] != whole[97:194]).nnz == 0


def test_large_ones_come_in_parts(store, monkeypatch):
    whole = store.csr()
    monkeypatch.setattr("cupola.stores._ANSWER_BYTES", 5000)
    assert len(list(store._parts(0, None))) > 10
    assert (store.csr() != whole).nnz == 0
    assert (store.csr(33, 250) != whole[33:283]).nnz == 0


def test_a_least_activation_makes_another_store(client, rows, selected, store):
    values = np.sort(store.csr().data)[store.info.entries // 2 :][:200]
    widest = np.argmax(np.diff(values))  # so that rounding does not decide
    bound = float(values[widest : widest + 2].mean())
    other = client.dictionary(SAE).store(selected, min_activation=bound).result()
    assert other.key != store.key
    expected = features(client, rows, min_activation=bound).csr
    assert (other.csr() > 0).nnz == expected.nnz > 0
    assert other.csr().data.min() > bound
    other.delete()


def test_it_is_not_made_twice(server, client, rows, selected, store):
    before = files(server)[0].stat()
    again = client.dictionary(SAE).store(selected, chunk_tokens=100)
    assert again.wait().tokens_done == store.info.tokens
    assert again.result().key == store.key
    # By whatever name the documents go.
    renamed = client.dataset("again", rows)
    third = client.dictionary(SAE).store(
        renamed.select("tiny", skip_positions=1), chunk_tokens=100
    )
    assert third.result().key == store.key
    renamed.delete()
    (path,) = files(server)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    # Other chunks may hold other bits.
    assert client.dictionary(SAE).store(selected, chunk_tokens=64).result().key != (
        store.key
    )


def spoil(path):
    """Doubles every stored value, checksums included, so that who reads the store
    shows it."""
    data = bytearray(path.read_bytes())
    at = 24 + int.from_bytes(data[12:16], "little")
    while at < len(data):
        size = int.from_bytes(data[at + 16 : at + 24], "little")
        begin = at + 40
        entries = int.from_bytes(data[begin + 8 : begin + 16], "little")
        values = np.frombuffer(data, "<f4", entries, begin + size - 4 * entries)
        data[begin + size - 4 * entries : begin + size] = (2 * values).tobytes()
        payload = bytes(data[begin : begin + size])
        data[at + 24 : at + 32] = xxhash.xxh3_64_intdigest(payload).to_bytes(8, "little")
        header = bytes(data[at : at + 32])
        data[at + 32 : at + 40] = xxhash.xxh3_64_intdigest(header).to_bytes(8, "little")
        at = begin + size
    path.write_bytes(bytes(data))


def test_other_jobs_read_it(catalog, rows, tmp_path):
    """What a store says is what they compute with: here it says, in the end,
    twice as much as the dictionary would."""
    with Server(tmp_path / "server", catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary(SAE)
            plain = sae.statistics(rows, chunk_tokens=100).result().to_dataframe()
            match = sae.match([OTHER], rows, chunk_tokens=100).result()
            cosines = match.cosines(range(20))
            key = sae.store(rows, chunk_tokens=100).result().key
            client.dictionary(OTHER).store(rows, chunk_tokens=100).wait()
            # With the stores, to the same bits.
            read = sae.statistics(rows, chunk_tokens=100).result().to_dataframe()
            assert read.equals(plain)
            again = sae.match([OTHER], rows, chunk_tokens=100).result()
            np.testing.assert_array_equal(again.cosines(range(20)), cosines)
        (path,) = [path for path in files(server) if key in path.name]
    spoil(path)
    with Server(tmp_path / "server", catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary(SAE)
            spoiled = sae.statistics(rows, chunk_tokens=100).result().to_dataframe()
            np.testing.assert_array_equal(spoiled["count"], plain["count"])
            np.testing.assert_allclose(spoiled["max"], 2 * plain["max"])
            doubled = sae.match([OTHER], rows, chunk_tokens=100).result()
            np.testing.assert_allclose(
                doubled.cosines(range(20)), cosines, atol=1e-6
            )
            # Of other chunks, or with no store, as ever.
            other = sae.statistics(rows, chunk_tokens=60).result().to_dataframe()
            np.testing.assert_allclose(other["max"], plain["max"], rtol=1e-4)
            client.activation_store(key).delete()
            computed = sae.statistics(rows, chunk_tokens=100).result().to_dataframe()
            np.testing.assert_allclose(computed["max"], plain["max"], rtol=1e-4)


def test_damage_is_told_and_mended(catalog, rows, tmp_path):
    with Server(tmp_path / "server", catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary(SAE)
            store = sae.store(rows, chunk_tokens=100).result()
            good = store.csr()
            plain = sae.statistics(rows, chunk_tokens=100).result().to_dataframe()
            (path,) = files(server)
            with open(path, "r+b") as file:
                file.seek(path.stat().st_size - 5)
                byte = file.read(1)[0]
                file.seek(-1, 1)
                file.write(bytes([byte ^ 8]))
            with pytest.raises(cupola.DataLoss, match="damaged in chunk"):
                store.csr()
            assert (store.csr(0, 100) != good[:100]).nnz == 0
            # A chunk that is damaged is computed, and written anew.
            again = sae.statistics(rows, chunk_tokens=100).result().to_dataframe()
            assert again.equals(plain)
            assert sae.store(rows, chunk_tokens=100).wait().state == "done"
            assert (store.csr() != good).nnz == 0


def test_survives_kill_9(catalog, tmp_path):
    random = np.random.default_rng(6)
    rows = [random.integers(3, 90, size=8).tolist() for _ in range(160)]
    flags = ("--job_checkpoint_seconds=0",)
    server = Server(tmp_path / "killed", catalog, *flags)
    with cupola.connect(server.grpc) as client:
        job = client.dictionary(SAE).store(rows, chunk_tokens=8, name="kept")
        for info in job.watch(progress=False):
            if info.chunks_saved > 20:
                break
        server.kill()
    with Server(tmp_path / "killed", catalog, *flags) as server:
        with cupola.connect(server.grpc) as client:
            job = client.job(job.id)
            assert job.wait().chunks == 160
            store = job.result()
            stored = store.csr()
            expected = client.dictionary(SAE).features(rows).csr
            np.testing.assert_allclose(
                stored.toarray(), expected.toarray(), rtol=1e-4, atol=1e-5
            )
    with Server(tmp_path / "killed", catalog, *flags) as server:
        with cupola.connect(server.grpc) as client:
            (again,) = client.activation_stores()
            assert again.info == store.info
            assert (again.csr() != stored).nnz == 0


def test_shards_of_one_server_share_a_store(catalog, rows, tmp_path):
    with Server(tmp_path / "server", catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary(SAE)
            paths, halves = [], []
            for i in range(2):
                half = sae.store(rows, chunk_tokens=100, shard=(1 - i, 2))
                half.wait()
                halves.append(half.result())
                if i == 0:
                    assert not halves[0].info.complete
                    with pytest.raises(cupola.FailedPrecondition, match="of 676 tokens"):
                        halves[0].csr()
                paths.append(tmp_path / f"{i}.shard")
                half.save_shard(paths[-1])
            assert halves[0].key == halves[1].key
            assert halves[1].info.complete
            merged = client.merge_shards(paths)
            assert (merged.result().csr() != halves[1].csr()).nnz == 0
            halves[1].delete()
            with pytest.raises(cupola.CupolaError, match="not in this server's store"):
                client.merge_shards(paths)


def test_listed_and_deleted(catalog, rows, tmp_path):
    with Server(tmp_path / "server", catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            assert client.activation_stores() == []
            first = client.dictionary(SAE).store(rows).result()
            second = client.dictionary(OTHER).store(rows).result()
            listed = client.activation_stores()
            assert [one.info for one in listed] == [first.info, second.info]
            assert len(files(server)) == 2
            first.delete()
            assert [one.key for one in client.activation_stores()] == [second.key]
            assert len(files(server)) == 1
            with pytest.raises(cupola.NotFound, match=f'no store "{first.key}"'):
                first.csr()
            with pytest.raises(cupola.NotFound, match="there is no store"):
                first.delete()
            with pytest.raises(cupola.NotFound, match="no store 'none'"):
                client.activation_store("none")
            # It is made again from nothing.
            assert client.dictionary(SAE).store(rows).result().key == first.key
            assert (first.csr() != second.csr()).nnz > 0


def test_a_quota_that_is_full_fails_the_job_alone(catalog, rows, tmp_path):
    flags = ("--store_bytes=100K", "--job_checkpoint_seconds=0")
    with Server(tmp_path / "server", catalog, *flags) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary(SAE)
            small = sae.store(rows[:3], chunk_tokens=50).result()
            job = sae.store(rows * 10, chunk_tokens=50)
            with pytest.raises(cupola.CupolaError, match="accepted: 102400: delete some"):
                job.wait()
            assert job.refresh().resumable
            assert 0 < job.info.chunks_saved < job.info.chunks
            assert small.csr().nnz == small.info.entries
            assert sae.statistics(rows).wait().state == "done"
            with pytest.raises(cupola.FailedPrecondition, match="submit it again"):
                job.result().csr()
            job.result().delete()
            small.delete()
            assert client.activation_stores() == []
            assert sae.store(rows[:3], chunk_tokens=50).wait().state == "done"


def test_refusals(client, rows, store):
    sae = client.dictionary(SAE)
    last = store.info.tokens - 1
    for first, count in ((-1, 1), (last + 1, 1), (0, last + 2), (0, -1)):
        with pytest.raises(
            cupola.InvalidArgument,
            match=f"tokens are {first} and {count}; accepted: tokens from 0 to {last}",
        ):
            store.csr(first, count)
    with pytest.raises(cupola.InvalidArgument, match="chunk_tokens is 65537"):
        sae.store(rows, chunk_tokens=65537)
    with pytest.raises(cupola.InvalidArgument, match="min_activation"):
        sae.store(rows, min_activation=-1)
    with pytest.raises(cupola.NotFound, match="tiny/none"):
        client.submit("store_activations", "tiny/none", rows)
    with pytest.raises(cupola.InvalidArgument, match="empty"):
        sae.store([])
