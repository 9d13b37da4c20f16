"""The cache through the server's life: hits, kill -9 and restart, drain."""

import threading

import cupola
import numpy as np
import pytest
from harness.server import Server, catalog_text

PROMPT = [[1, 5, 9, 2, 7, 11, 3]]
MAX_CALLS = 1000  # the cache is filled in the background; far fewer do


@pytest.fixture
def catalog(zoo):
    """One model with one dictionary."""
    family = next(iter(zoo.models))
    name = next(n for n in zoo.dictionaries if n.startswith(f"{family}/"))
    text = catalog_text(
        {family: zoo.models[family]}, {name: zoo.dictionaries[name]}
    )
    return text, name


def raw(features):
    """The answer's bytes: structure, values, and which token a row is."""
    csr = features.csr
    arrays = (csr.indptr, csr.indices, csr.data, features.prompt, features.position)
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


def ask_until_cached(ask):
    first = ask()
    assert not first.from_cache
    for _ in range(MAX_CALLS):
        answer = ask()
        assert raw(answer) == raw(first)
        if answer.from_cache:
            return first
    pytest.fail(f"not cached after {MAX_CALLS} calls")


def wait_for_inserts(client, count):
    """Until the background writer has handed `count` records to the disk."""
    for _ in range(MAX_CALLS):
        if client.cache_statistics().inserts >= count:
            return
    pytest.fail(f"{client.cache_statistics()} after {MAX_CALLS} calls")


def test_a_hit_is_byte_identical_after_kill_and_restart(catalog, tmp_path):
    text, name = catalog
    with Server(tmp_path, text) as server:
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary(name)
            first = ask_until_cached(lambda: sae.features(PROMPT))
            wait_for_inserts(client, 1)
        assert server.kill() == -9
    with Server(tmp_path, text) as server:
        with cupola.connect(server.grpc) as client:
            again = client.dictionary(name).features(PROMPT)
            assert again.from_cache
            assert raw(again) == raw(first)
            assert client.cache_statistics().hits >= 1
        assert server.stop() == 0


def test_clearing_empties_it(catalog, tmp_path):
    text, name = catalog
    with Server(tmp_path, text) as server, cupola.connect(server.grpc) as client:
        sae = client.dictionary(name)
        first = ask_until_cached(lambda: sae.features(PROMPT))
        client.clear_cache()
        again = sae.features(PROMPT)
        assert not again.from_cache
        assert raw(again) == raw(first)  # computed alone, twice


def test_different_questions_do_not_share_an_answer(catalog, tmp_path):
    text, name = catalog
    with Server(tmp_path, text) as server, cupola.connect(server.grpc) as client:
        sae = client.dictionary(name)
        full = ask_until_cached(lambda: sae.features(PROMPT))
        top = sae.features(PROMPT, top_k=1)
        assert not top.from_cache
        assert (np.diff(top.csr.indptr) <= 1).all()
        last = sae.features(PROMPT, positions=[-1])
        assert raw(last)[:3] != raw(full)[:3]
        assert list(last.position) == [len(PROMPT[0]) - 1]
        other = sae.features([[1, 5, 9, 2, 7, 11, 4]])
        assert not other.from_cache


def test_sigterm_drains(catalog, tmp_path):
    """Requests in flight at the signal are answered whole; later ones are refused
    (by the server, or by gRPC where they cross its goodbye), and the server ends
    with status 0."""
    text, name = catalog
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 60, (8, 64)).tolist() for _ in range(64)]
    outcomes, connected = [], threading.Barrier(5)
    with Server(tmp_path, text) as server:

        def work(mine):
            with cupola.connect(server.grpc, deadline=60) as client:
                sae = client.dictionary(name)
                connected.wait(60)
                for batch in mine:
                    try:
                        outcomes.append(len(sae.features(batch)) == 8 * 64)
                    except (cupola.Unavailable, cupola.Cancelled):
                        outcomes.append(None)
                        return

        threads = [threading.Thread(target=work, args=(batches[i::4],)) for i in range(4)]
        for thread in threads:
            thread.start()
        connected.wait(60)
        assert server.stop() == 0
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert outcomes
    assert False not in outcomes
