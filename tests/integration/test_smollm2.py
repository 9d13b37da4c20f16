"""The demo: SmolLM2-135M with its dictionaries, from text to features."""

import os
import re
import subprocess
import sys

import cupola
import pytest
from harness.server import ROOT
from harness.smollm2 import model_folder

PARIS = "The capital of France is Paris"
RESID = "smollm2-135m/l12-resid"


@pytest.fixture(scope="module")
def server(smollm2_server):
    return smollm2_server


@pytest.fixture(scope="module")
def client(server):
    with cupola.connect(server.grpc) as client:
        yield client


def test_latent_50_fires_on_france_and_paris(client):
    features = client.dictionary(RESID).features(PARIS, latents=[50])
    column = features.csr.toarray()[:, 50]
    fired = {
        token: value for token, value in zip(features.tokens, column) if value > 0
    }
    assert fired[" France"] == pytest.approx(4.4, abs=0.05)
    assert fired[" Paris"] == pytest.approx(4.6, abs=0.05)


def test_topk_keeps_at_most_32(client):
    features = client.dictionary(RESID).features(PARIS)
    assert features.csr.shape == (7, 4608)
    assert features.csr.getnnz(axis=1).max() <= 32


def test_measures_as_the_demo_says(client):
    """The server measures on its own sample text, so the bounds are wide; a wrong
    tap, BOS or processing would miss them by far."""
    measured = client.self_check(RESID).measured
    assert measured.l0 == pytest.approx(32, abs=0.5)
    assert 0.05 < measured.fvu < 0.3
    pair = client.self_check("smollm2-135m/l12-mlp")
    assert 0.1 < pair.measured.fvu < 0.4
    assert 0.2 < pair.measured_out.fvu < 0.6


def test_reconstruction(client):
    rebuilt = client.dictionary(RESID).reconstruct(PARIS, positions=range(1, 7))
    assert len(rebuilt) == 6
    assert rebuilt.fvu < 0.3
    assert rebuilt.l0 == pytest.approx(32, abs=0.5)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cupola.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "120"},
        check=False,
    )


def test_the_command_line_prints_the_table_and_the_cache(server):
    arguments = ["--server", server.grpc, "features", RESID, PARIS + "."]
    first, second = command(*arguments), command(*arguments)
    assert first.returncode == 0, first.stderr
    assert "Paris" in first.stdout
    assert "4608" in first.stdout or "latent" in first.stdout
    assert second.returncode == 0
    assert "cache" in second.stdout + second.stderr


CHAT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def test_greedy_text_is_transformers(client):
    import torch
    from transformers import AutoModelForCausalLM

    model = client.model("smollm2-135m")
    answer = model.generate(CHAT, 24, prepend_bos=False)
    assert "Paris" in answer.text[0]
    assert answer.finish == ["stop"]  # the model's own end of text
    theirs = AutoModelForCausalLM.from_pretrained(
        model_folder(), dtype=torch.float32
    ).generate(
        torch.tensor(answer.prompt_token_ids),
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=answer.token_ids[0][-1],
        pad_token_id=0,
    )
    assert theirs[0].tolist() == answer.prompt_token_ids[0] + answer.token_ids[0]


def test_a_steered_text_is_another(client):
    model = client.model("smollm2-135m")
    sae = client.dictionary(RESID)
    steer = cupola.SetLatents(sae, {50: 60.0}, scope="generated")
    plain, steered = (model.generate(PARIS, 12, i) for i in ([], [steer]))
    assert steered.text != plain.text
    assert steered.logprobs[0][0] == pytest.approx(plain.logprobs[0][0], abs=1e-4)


def test_the_command_line_writes_on(server):
    arguments = ["--server", server.grpc, "generate", "smollm2-135m", "Once upon a time"]
    first = command(*arguments, "--max-new-tokens", "8")
    assert first.returncode == 0, first.stderr
    assert len(first.stdout.splitlines()[0]) > 5
    assert "computed in" in first.stdout
    again = command(*arguments, "--max-new-tokens", "8")
    assert again.stdout.splitlines()[0] == first.stdout.splitlines()[0]
    assert "from cache" in again.stdout


def test_the_tour(server):
    tour = subprocess.run(
        [sys.executable, ROOT / "deploy/demo/tour.py", "--address", server.grpc],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert tour.returncode == 0, tour.stderr
    assert "both answers are identical" in tour.stdout
    assert "second answer: from the cache" in tour.stdout
    assert "32 ablations" in tour.stdout
    # The Jacobian's strongest link is to the latent of cities, and holds.
    assert "Inside MLP 12, at ' Paris'" in tour.stdout
    assert re.search(r"moves.*\n(.*\n){1,4}.*' Rome'", tour.stdout)
    assert "of the 1024 pairs" in tour.stdout
    told = re.search(r"should go from ([\d.]+)\s+to\s+([\d.]+);", tour.stdout)
    came = re.search(r"it\s+goes\s+to\s+([\d.]+)\.", tour.stdout)
    moved = float(told[1]) - float(told[2])
    assert abs(moved) > 0.05
    assert float(told[1]) - float(came[1]) == pytest.approx(moved, rel=0.25)
