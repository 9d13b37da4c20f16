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


def test_jacobian(run, server):
    lines = run("jacobian", "tiny/pair", "The sky", "--top", "2").output
    lines = lines.splitlines()
    assert "d out / d in" in lines[0] and "input latent" in lines[0]
    assert lines[1].split() == ["0", "'<bos>'", "7", "2", "3", "0.5", "+2.0000"]
    assert lines[2].split() == ["5", "3", "20", "1.5", "+1.0000"]
    assert lines[5].split()[:3] == ["2", "'", "sky'"]
    assert "2 strongest of 2 x 3 a token" in lines[-2]
    assert lines[-1].startswith("computed in 500 ms")
    request, _ = server.last("GetJacobian")
    assert request.dictionary == "tiny/pair:in"
    assert request.output_dictionary == "tiny/pair:out"
    run(
        *("jacobian", "tiny/sae", "The", "--output", "tiny/pair:out"),
        *("--positions", "-1", "--mlp-input", "reconstruction"),
        *("--block", "all", "--top", "7", "--min-abs", "0.5"),
        *("--mask", "positive", "--processing", "folded", "--no-bos"),
    )
    request, _ = server.last("GetJacobian")
    assert request.dictionary == "tiny/sae"
    assert request.output_dictionary == "tiny/pair:out"
    assert request.mlp_input == request.mask == request.processing == 2
    assert request.all_inputs.top == 7 and request.all_inputs.min_abs == 0.5
    assert list(request.positions.every_prompt.values) == [-1]
    assert not request.prompts.prepend_bos


def test_jacobian_across_layers(run, server):
    lines = run(
        *("jacobian", "tiny/sae", "The sky", "--output", "tiny/pair:out"),
        *("--mode", "frozen", "--source-positions", "0", "--top", "1"),
    ).output.splitlines()
    assert "from" in lines[0]
    assert lines[2].split()[:4] == ["1", "'The'", "0", "5"]
    request, _ = server.last("GetJacobian")
    assert request.mode == 2
    assert list(request.source_positions.at.every_prompt.values) == [0]
    run("jacobian", "tiny/pair", "The", "--source-positions", "all")
    assert server.last("GetJacobian")[0].source_positions.all


def test_jacobian_json(run):
    answer = json.loads(
        run("jacobian", "tiny/pair", "The sky", "--json").output
    )
    assert answer["dictionary"] == "tiny/pair:in"
    assert answer["output_dictionary"] == "tiny/pair:out"
    assert answer["tokens"][0] == {
        "position": 0,
        "source_position": 0,
        "token_id": 0,
        "token": "<bos>",
        "in_latents": [[5, 3.0], [7, 2.0]],
        "out_latents": [[20, 1.5], [3, 0.5]],
        "values": [[1.0, -0.5], [0.0, 2.0]],
    }
    answer = json.loads(
        run("jacobian", "tiny/pair", "The", "--block", "all", "--json").output
    )
    assert answer["tokens"][1]["entries"][0] == [40, 3, 8.0]
    assert "values" not in answer["tokens"][1]


def test_sweep(run, server, tmp_path):
    lines = run("sweep", "tiny/pair", "The sky", "--points", "24").output
    lines = lines.splitlines()
    assert "slope" in lines[0] and "zero region" in lines[0]
    first, second = lines[1], lines[2]
    assert first.split()[:6] == ["0", "'<bos>'", "5", "5", "20", "linear"]
    assert first.split()[6:8] == ["+2.0000", "+1.0000"]
    assert "▁" not in first and first.rstrip().endswith("█")
    assert "JumpReLU" in second and "0 to 0.5" in second
    assert second.split()[-1].startswith("▁▁▁▁")
    assert "1 linear, 1 JumpReLU, 1 other" in lines[-2]
    page = tmp_path / "sweep.html"
    found = run(
        *("sweep", "tiny/pair", "The sky", "--positions", "1,2"),
        *("--sample", "12:30", "--sample", "13:31", "--grid", "0,1,2.5"),
        *("--tolerance", "0.5", "--published-classes", "--json", "--curves"),
        *("--html", str(page)),
    )
    request, _ = server.last("Sweep")
    assert list(request.samples.rows) == [0, 0, 1, 1]
    assert list(request.samples.in_latents) == [12, 13] * 2
    assert list(request.samples.out_latents) == [30, 31] * 2
    assert list(request.grid) == [0, 1, 2.5] and request.published_classes
    answer = json.loads(found.stdout)
    assert answer["counts"] == {"linear": 2, "JumpReLU": 1, "other": 1}
    assert answer["samples"][0] == {
        "position": 1,
        "token": "The",
        "in_latent": 12,
        "out_latent": 30,
        "strength": 12.0,
        "class": "linear",
        "slope": 2.0,
        "intercept": 1.0,
        "zero_region": None,
        "grid": [0.0, 1.0, 2.5],
        "curve": [1.0, 3.0, 6.0],
    }
    assert answer["samples"][1]["zero_region"] == [0.0, 0.5]
    assert "</html>" in page.read_text() and str(page) in found.stderr


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("sweep", "--sample", "12"), "--sample: expected INPUT:OUTPUT"),
        (("sweep", "--sample", "a:b"), "such as 12:340, got 'a:b'"),
        (("sweep", "--grid", "0,x"), "--grid: expected numbers"),
        (("sweep", "--positions", "one"), "--positions"),
        (("jacobian", "--block", "some"), "block: expected 'active' or 'all'"),
        (("jacobian", "--mask", "most"), "mask: expected"),
        (("jacobian", "--mode", "half"), "mode: expected"),
    ],
)
def test_bad_questions_about_a_pair(run, server, arguments, says):
    name, *options = arguments
    result = run(name, "tiny/pair", "The", *options, code=2)
    assert says in result.stderr and result.stderr.count("\n") == 1
    assert result.stdout == ""
    asked = {entry[0] for entry in server.requests}
    assert not asked & {"GetJacobian", "Sweep"}


def test_a_page_that_cannot_be_written(run, tmp_path):
    page = tmp_path / "none" / "page.html"
    result = run("jacobian", "tiny/pair", "The", "--html", str(page), code=1)
    assert result.stderr.startswith("cupola: --html: ")


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("ablate", ["--together", "--target", "--later", "all"]),
        ("attribute", ["--layer", "--mlp-input", "--apply-norm", "--no-gain"]),
        ("attribute", ["--split", "--mean", "--vector"]),
        ("attribute", ["--reference", "--inactive"]),
        ("generate", ["--samples", "--top-logprobs", "--set-latent"]),
        ("generate", ["--subtract", "--zero", "--scope"]),
    ],
)
def test_commands_have_what_the_calls_have(run, name, wanted):
    output = run(name, "--help").output
    for option in wanted:
        assert option in output


def test_generate_under_interventions(run, server):
    output = run(
        *("generate", "tiny", "The", "--max-new-tokens", "2"),
        *("--set-latent", "tiny/sae:7=2.5", "--subtract", "tiny/pair:in:8"),
        *("--zero", "blocks.0.hook_mlp_out", "--scope", "generated"),
        *("--samples", "2", "--temperature", "1"),
    ).output
    request, _ = server.last("Generate")
    held, taken, zero = request.interventions
    assert held.dictionary == "tiny/sae"
    assert taken.dictionary == "tiny/pair:in"
    assert zero.hook == "blocks.0.hook_mlp_out"
    assert len({one.scope for one in request.interventions} - {0}) == 1
    assert request.samples == 2
    assert "0: The sky" in output and "1:  sky is" in output
    answer = json.loads(
        run(
            *("generate", "tiny", "The", "--max-new-tokens", "2", "--json"),
            *("--top-logprobs", "1"),
        ).output
    )
    assert answer["top"] == [[[1, "The", -1.0]], [[2, " sky", -2.0]]]
    for option, value in (
        ("--set-latent", "tiny/sae:7"),
        ("--subtract", "tiny/sae"),
    ):
        result = run("generate", "tiny", "The", option, value, code=2)
        assert option in result.stderr and repr(value) in result.stderr


def test_bad_targets(run):
    result = run("ablate", "tiny/sae", "The", "--target", "3", code=2)
    assert "POSITION:LATENT" in result.stderr and "'3'" in result.stderr


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
