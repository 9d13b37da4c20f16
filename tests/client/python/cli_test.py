"""The `cupola` command against the fake server."""

import json
import threading

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from cupola import cli


@pytest.fixture
def run(server, monkeypatch):
    monkeypatch.setenv("CUPOLA_SERVER", server.target)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def invoke(*arguments, code=0, **options):
        result = CliRunner().invoke(cli.app, arguments, **options)
        assert result.exit_code == code, result.output
        return result

    return invoke


def test_models_and_dictionaries(run):
    output = run("models").output
    assert "tiny" in output and "resident" in output and "llama" in output
    output = run("dictionaries").output
    assert "tiny/sae" in output and "tiny/sae: FVU is far off" in output
    (info,) = json.loads(run("models", "--json").output)
    assert info["name"] == "tiny" and info["hook_points"] == []
    infos = json.loads(run("dictionaries", "--json").output)
    assert infos[0]["measured"]["l0"] == 3.0


def test_features(run):
    lines = run("features", "tiny/sae", "The sky").output.splitlines()
    assert lines[1].split() == ["0", "'<bos>'", "7", "900", "40", "300"]
    assert lines[3].split("sky'")[1].split() == [
        "2",
        "3",
        "20",
        "2",
        "32",
        "0.5",
    ]
    assert lines[-1].startswith(
        "computed in 500 ms (queue 2.00 ms, compute 250"
    )
    again = run("features", "tiny/sae", "The sky").output.splitlines()
    assert again[-1].startswith("from cache in 500 ms")
    assert again[:-1] == lines[:-1]


def test_features_options(run, server):
    run(
        *("features", "tiny/sae", "The sky", "--top", "1"),
        *("--positions", "-1,0", "--latents", "2,3"),
        *("--min-activation", "0.5", "--processing", "folded", "--no-bos"),
    )
    request, _ = server.last("GetFeatures")
    assert list(request.positions.every_prompt.values) == [-1, 0]
    assert list(request.latents) == [2, 3]
    assert request.min_activation == 0.5
    assert request.processing == 2
    assert request.prompts.HasField("prepend_bos")
    assert not request.prompts.prepend_bos


def test_features_json(run):
    answer = json.loads(run("features", "tiny/sae", "The sky", "--json").output)
    assert answer["from_cache"] is False and answer["model"] == "tiny"
    assert answer["seconds"]["compute"] == 0.25
    assert answer["tokens"][2] == {
        "position": 2,
        "token_id": 2,
        "token": " sky",
        "latents": [[2, 3.0], [20, 2.0], [32, 0.5]],
    }


def test_text_from_standard_input(run):
    output = run("features", "tiny/sae", "-", input="The").output
    assert "'The'" in output


def test_activations(run, tmp_path):
    out = tmp_path / "acts.npz"
    output = run(
        *("activations", "tiny", "The sky", "--hook", "embed0"),
        *("--hook", "b", "--positions", "-1", "--out", str(out)),
    ).output
    assert "hook_embed [1, 4]" in output and "' sky'" in output
    with np.load(out) as arrays:
        assert arrays["hook_embed"].tolist() == [[2.5, 0, -2, 2]]
        assert arrays["positions"].tolist() == [2]
        assert arrays["token_ids"].tolist() == [0, 1, 2]
    answer = json.loads(
        run("activations", "tiny", "The", "--hook", "b", "--json").output
    )
    assert answer["activations"]["b"][1] == [1.5, 0, -1, 2]
    run("activations", "tiny", "The", code=2)


def test_tokenize(run):
    output = run("tokenize", "tiny", "The sky").output
    assert "' sky'" in output and "<bos>" in output
    answer = json.loads(
        run("tokenize", "tiny", "The", "--no-bos", "--json").output
    )
    assert answer == {"token_ids": [1], "tokens": ["The"]}
    assert run("tokenize", "tiny", "", "--no-bos", "--json")


def test_status(run, server):
    output = run("status").output
    assert "ready" in output and "2.0 KiB" in output
    server.health = b"\x08\x02"
    assert "not ready" in run("status", code=4).output
    answer = json.loads(run("status", "--json", code=4).output)
    assert answer["serving"] is False and answer["cache"]["hits"] == 3


@pytest.mark.parametrize(
    "status, code",
    [("INVALID_ARGUMENT", 2), ("NOT_FOUND", 3), ("INTERNAL", 1)],
)
def test_errors_are_one_line(run, server, status, code):
    failure = (grpc.StatusCode[status], "first line\nsecond", ())
    server.failures = [failure]
    result = run("models", code=code)
    assert result.stderr == "cupola: first line second\n"
    assert result.stdout == ""


def test_no_such_dictionary(run):
    result = run("features", "nope", "text", code=3)
    assert "nope" in result.stderr and "there are tiny" in result.stderr


def test_wrong_arguments(run, server):
    result = run("features", "tiny/sae", "The", "--positions", "1,x", code=2)
    assert "--positions" in result.stderr and "'1,x'" in result.stderr
    run("features", "tiny/sae", "The", "--top", "0", code=2)
    run("features", "tiny/sae", code=2)
    assert not any(entry[0] == "GetFeatures" for entry in server.requests)


def test_the_server_can_be_named_in_three_places(run, server, monkeypatch):
    monkeypatch.setenv("CUPOLA_SERVER", "127.0.0.1:1")
    result = run("models", code=4)
    assert "127.0.0.1:1" in result.stderr and result.stderr.count("\n") == 1
    run("--server", server.target, "models")
    run("models", "--server", server.target)
    run("--server", "127.0.0.1:1", "models", "--server", server.target)


def test_deadline_and_token(run, server):
    run("--token", "secret", "models")
    assert server.last("List")[1]["authorization"] == "Bearer secret"
    server.stall = threading.Event()
    run("--deadline", "0.2", "models", code=5)


def test_full_queue(run, server):
    trailing = [("grpc-retry-pushback-ms", "1500")]
    server.failures = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", trailing)]
    assert "in about 1.5 s" in run("models", code=1).stderr


def test_version_and_help(run):
    assert run("--version").output.startswith("cupola 0.")
    assert "features" in run("--help").output


def test_import_refuses_what_is_no_gguf(run, tmp_path):
    pytest.importorskip("gguf")
    file = tmp_path / "model.gguf"
    file.write_bytes(b"not a GGUF")
    result = run("import", "gguf", str(file), str(tmp_path / "out"), code=1)
    assert result.stderr.startswith("cupola: ")
    assert "not a readable GGUF" in result.stderr
    assert not (tmp_path / "out").exists()
