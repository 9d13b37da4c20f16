"""More models and dictionaries than the memory holds."""

import os
import threading
import time

import cupola
import numpy as np
import pytest
from harness import checkpoints
from harness.server import Server, catalog_text
from harness.zoo import make_dictionaries

COUNT = 20
HELD = 4  # of each, at the same time


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return catalog_text(
        *checkpoints.make(tmp_path_factory.mktemp("checkpoints"), COUNT)
    )


def prompt(index, turn=0):
    return [1 + (7 * index + 3 * turn + k) % 200 for k in range(12)]


@pytest.fixture(scope="module")
def unlimited(catalog, tmp_path_factory):
    """(answers by index, bytes of all weights) of a server without a limit."""
    with Server(tmp_path_factory.mktemp("unlimited"), catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            answers = [
                client.dictionary(f"m{i}/sae").features(prompt(i))
                for i in range(COUNT)
            ]
            (memory,) = client.device_memory()
            assert memory.budget_bytes == 0
            assert all(m.state == "resident" for m in client.models())
            return answers, memory.used_bytes


def start(catalog, folder, bytes, *flags):
    server = Server(
        folder,
        catalog,
        f"--device_memory={bytes}",
        "--min_residency_seconds=0",
        "--cache_memory_bytes=0",
        "--no-self_check",
        *flags,
    )
    server.wait_until_loaded()
    return server


def budget(all_bytes):
    return HELD * all_bytes // COUNT + 4096


def same(features, expected):
    left, right = features.csr, expected.csr
    assert (left != right).nnz == 0 or np.allclose(
        left.toarray(), right.toarray(), rtol=1e-5, atol=1e-6
    )


def states(client):
    return [entry.state for entry in (*client.models(), *client.dictionaries())]


def test_a_start_loads_what_fits(catalog, unlimited, tmp_path):
    with start(catalog, tmp_path, budget(unlimited[1])) as server:
        with cupola.connect(server.grpc) as client:
            (memory,) = client.device_memory()
            assert 0 < memory.used_bytes <= memory.budget_bytes
            assert states(client)[0] == "resident"
            assert "registered" in states(client)
            assert "failed" not in states(client)
            # Its files have been read all the same.
            assert client.describe(f"m{COUNT - 1}/sae").d_sae == 1024


def test_rotation_gives_the_answers_of_a_server_that_holds_everything(
    catalog, unlimited, tmp_path
):
    answers, all_bytes = unlimited
    with start(catalog, tmp_path, budget(all_bytes)) as server:
        with cupola.connect(server.grpc, deadline=60) as client:
            seen = set()
            for turn in range(2):
                for i in range(COUNT):
                    sae = client.dictionary(f"m{i}/sae")
                    if turn == 0:
                        same(sae.features(prompt(i)), answers[i])
                    else:  # computed again, not from the cache
                        sae.features(prompt(i, turn))
                    (memory,) = client.device_memory()
                    assert memory.used_bytes <= memory.budget_bytes
                    now = states(client)
                    assert now[i] == now[COUNT + i] == "resident"
                    seen.update(now)
            assert "evicted" in seen


def test_clients_of_different_entries_at_once(catalog, unlimited, tmp_path):
    answers, all_bytes = unlimited
    with start(catalog, tmp_path, budget(all_bytes)) as server:
        failures = []

        def work(first):
            with cupola.connect(server.grpc, deadline=120) as client:
                for step in range(12):
                    i = (first + step) % COUNT
                    try:
                        sae = client.dictionary(f"m{i}/sae")
                        same(sae.features(prompt(i)), answers[i])
                        sae.features(prompt(i, 1 + step + 20 * first))
                    except Exception as error:  # told below
                        failures.append((i, error))

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        with cupola.connect(server.grpc) as watcher:
            most = 0
            while any(thread.is_alive() for thread in threads):
                (memory,) = watcher.device_memory()
                most = max(most, memory.used_bytes)
                time.sleep(0.01)
            assert not failures
            assert 0 < most <= memory.budget_bytes


def test_an_entry_larger_than_the_budget_is_refused_with_both_numbers(
    catalog, tmp_path
):
    with start(catalog, tmp_path, 100_000) as server:
        with cupola.connect(server.grpc) as client:
            with pytest.raises(
                cupola.ResourceExhausted,
                match=r'model "m0" .*needs \d+ bytes of cpu; accepted: 100000',
            ):
                client.dictionary("m0/sae").features(prompt(0))
            assert client.describe("m0").state == "registered"


def test_unloading_gives_the_memory_back(catalog, unlimited, tmp_path):
    with start(catalog, tmp_path, budget(unlimited[1])) as server:
        with cupola.connect(server.grpc) as client:
            for entry in client.models():
                if entry.state == "resident":
                    assert client.unload(entry.name).state == "evicted"
            for _ in range(200):
                (memory,) = client.device_memory()
                if memory.used_bytes == 0:
                    break
                time.sleep(0.01)
            assert memory.used_bytes == 0


def test_two_devices_share_the_entries(catalog, unlimited, tmp_path):
    answers, _ = unlimited
    with start(catalog, tmp_path, "1G", "--device=cpu,cpu:0") as server:
        with cupola.connect(server.grpc) as client:
            devices = [model.device for model in client.models()]
            assert sorted(devices) == ["cpu"] * (COUNT // 2) + ["cpu:0"] * (COUNT // 2)
            for i in range(COUNT):
                same(
                    client.dictionary(f"m{i}/sae").features(prompt(i)),
                    answers[i],
                )
            assert all(m.used_bytes > 0 for m in client.device_memory())


def used_bytes(client):
    (memory,) = client.device_memory()
    return memory.used_bytes


def test_constants_of_pairs_count_and_make_room(tmp_path):
    models, _ = checkpoints.make(tmp_path / "checkpoints", 2)
    pair = make_dictionaries.make_pair(
        tmp_path / "pair",
        d_in=128,
        d_sae=512,
        k=16,
        hook_name="blocks.1.ln2.hook_normalized",
        seed=3,
    )
    catalog = catalog_text(models, {"pair": ("m0", pair)})
    with start(catalog, tmp_path / "all", 0) as server:
        with cupola.connect(server.grpc) as client:
            expected = client.pair("pair").jacobian([prompt(0), prompt(1)])
            both = used_bytes(client)
            other = client.describe("m1").resident_bytes
            weights = sum(
                client.describe(name).resident_bytes for name in ("m0", "m1", "pair")
            )
            assert both > weights + 2_000_000
    limit = both - other // 2
    with start(catalog, tmp_path / "some", limit) as server:
        with cupola.connect(server.grpc) as client:
            client.unload("m1")
            first = client.pair("pair").jacobian([prompt(0)])
            assert used_bytes(client) > limit - other
            client.dictionary("pair:in").features(prompt(3))  # not the constants
            client.load("m1")
            states = [client.describe(n).state for n in ("m0", "m1", "pair")]
            assert states == ["resident"] * 3
            assert used_bytes(client) <= limit - 2_000_000
            # Made again, with or without the products.
            second = client.pair("pair").jacobian([prompt(1)])
            assert used_bytes(client) <= limit
    for got, part in ((first, expected.prompt == 0), (second, expected.prompt == 1)):
        np.testing.assert_array_equal(got.in_latents, expected.in_latents[part])
        scale = np.abs(expected.values).max()
        np.testing.assert_allclose(
            got.values, expected.values[part], rtol=0, atol=5e-5 * scale
        )


@pytest.mark.skipif(
    not os.environ.get("CUPOLA_STRESS"), reason="a stress test (--stress)"
)
def test_20_checkpoints_of_pythia_70m_in_room_for_4(tmp_path):
    count, held = 20, 4
    catalog = catalog_text(
        *checkpoints.make(
            tmp_path / "checkpoints",
            count,
            shape=checkpoints.PYTHIA_70M,
            d_sae=16384,
        )
    )
    expected = []
    with Server(
        tmp_path / "one", catalog, "--device_memory=1G", "--no-self_check"
    ) as server:
        # One after the other alone: each answer is computed by fresh weights.
        with cupola.connect(server.grpc, deadline=300) as client:
            server.wait_until_loaded()
            for i in range(count):
                sae = client.dictionary(f"m{i}/sae")
                expected.append(sae.features(prompt(i)))
                each = (
                    client.describe(f"m{i}").resident_bytes
                    + client.describe(f"m{i}/sae").resident_bytes
                )
    limit = held * each * 34 // 32  # with the columns that SAEs may keep
    with start(catalog, tmp_path / "many", limit) as server:
        with cupola.connect(server.grpc, deadline=600) as client:
            before = server.resident_bytes()
            for i in [*range(count), *range(0, count, 3)]:
                same(
                    client.dictionary(f"m{i}/sae").features(prompt(i)),
                    expected[i],
                )
                (memory,) = client.device_memory()
                assert memory.used_bytes <= limit
            # What is loaded, one entry that is being read, and the rest of
            # the process.
            assert server.resident_bytes() < max(before, limit) + 2 * each
