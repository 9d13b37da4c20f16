"""kill -9 under load: the cache opens every time, and no answer is wrong."""

import random
import threading
import time

import cupola
from harness.server import Server
from harness.stress import SAE, scaled


def test_killed_under_load(catalog, prompts, check, tmp_path):
    own = random.Random(1)
    hits = 0
    for _ in range(scaled(100)):
        server = Server(tmp_path, catalog)
        stop = threading.Event()
        wrong = []

        def ask(seed):
            order = random.Random(seed)
            with cupola.connect(server.grpc, deadline=30) as client:
                sae = client.dictionary(SAE)
                while not stop.is_set():
                    i = order.randrange(len(prompts))
                    try:
                        answer = sae.features([prompts[i]])
                    except cupola.CupolaError:
                        continue  # the server has gone
                    try:
                        check(i, answer)
                    except AssertionError as error:
                        wrong.append(error)
                    nonlocal hits
                    hits += answer.from_cache

        threads = [
            threading.Thread(target=ask, args=(own.random(),)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        server.wait_until_loaded()
        time.sleep(own.uniform(0, 0.3))
        assert server.kill() == -9
        stop.set()
        for thread in threads:
            thread.join()
        assert not wrong, wrong[0]
    log = (tmp_path / "server.log").read_text()
    assert "moved aside" not in log
    assert "no cache" not in log
    print(f"\n{hits} answers from the cache")
    assert hits > 0
    with Server(tmp_path, catalog) as server:
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary(SAE)
            for i, prompt in enumerate(prompts):
                check(i, sae.features([prompt]))
            assert client.cache_statistics().corrupt_records == 0
