"""The HTTP port beside a server that has answered."""

import cupola
import pytest


def test_pages(server, client, zoo):
    assert server.get("/healthz")
    client.dictionary(next(iter(zoo.dictionaries))).features([[3, 1, 4]])
    with pytest.raises(cupola.NotFound):
        client.dictionary("no-such")
    metrics = server.get("/metrics")
    for word in ("cupola_", "NOT_FOUND", "hit", "compute", "build"):
        assert word in metrics, word


def test_prompts_reach_neither_log_nor_metrics(server, client, zoo):
    model = client.model(next(iter(zoo.models)))
    model.tokenize("xylophonic secret")
    assert "xylophonic" not in server.log()
    assert "xylophonic" not in server.get("/metrics")
