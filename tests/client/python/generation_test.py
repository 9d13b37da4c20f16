"""Model.generate and `cupola generate` against the fake server."""

import json

import grpc
import pytest
from typer.testing import CliRunner

import cupola
from cupola import _protos as protos
from cupola import cli


@pytest.fixture
def model(client):
    return client.model("tiny")


def test_the_whole_answer(model, server):
    answer = model.generate("The sky", 3, stop=[], top_logprobs=2)
    assert answer.text == ["The sky is"]
    assert answer.token_ids == [[1, 2, 3]]
    assert answer.tokens == [["The", " sky", " is"]]
    assert answer.logprobs == [[-1, -2, -3]]
    assert [choice.token for choice in answer.top[0][2]] == [" is", " is"]
    assert answer.finish == ["length"]
    assert answer.prompt_token_ids == [[0, 1, 2]]
    request, metadata = server.last("Generate")
    assert request.max_new_tokens == 3 and request.samples == 1
    assert request.HasField("stop") and not request.stop.ids
    assert not request.HasField("top_p") and request.temperature == 0
    assert metadata["cupola-model"] == "tiny"
    frame = answer.to_dataframe()
    assert frame.position.tolist() == [3, 4, 5]
    assert frame.token.tolist() == ["The", " sky", " is"]
    assert "Generation by tiny" in repr(answer) and "The sky is" in repr(answer)


def test_samples_and_prompts(model, server):
    answer = model.generate(
        ["The", " sky"], 2, temperature=0.5, top_k=7, top_p=0.9, samples=2, seed=5
    )
    assert answer.text == [["The sky", " sky is"]] * 2
    assert len(answer.to_dataframe()) == 8
    request, _ = server.last("Generate")
    assert (request.top_k, request.top_p, request.seed) == (7, 0.9, 5)
    assert not request.HasField("stop")


def test_stop_tokens_by_text_and_id(model, server):
    answer = model.generate("The", 5, stop=[" is", 7])
    assert answer.text == ["The sky"] and answer.finish == ["stop"]
    assert answer.token_ids == [[1, 2, 3]]
    assert list(server.last("Generate")[0].stop.ids) == [3, 7]
    with pytest.raises(cupola.InvalidArgument, match="stop"):
        model.generate("The", 5, stop=["The sky"])


def test_interventions_and_their_scope(model, server):
    hook = "blocks.0.hook_resid_pre"
    model.generate(
        "The",
        2,
        [
            cupola.Zero(hook),
            cupola.Add(hook, 1.0, scope="generated"),
            cupola.SubtractLatents("tiny/sae", [3], scope="prompt"),
        ],
    )
    sent = server.last("Generate")[0].interventions
    scopes = protos.run.Intervention
    assert [one.scope for one in sent] == [
        scopes.SCOPE_UNSPECIFIED,
        scopes.GENERATED,
        scopes.PROMPT,
    ]
    with pytest.raises(cupola.InvalidArgument, match=r"interventions\[0\].scope"):
        model.generate("The", 2, [cupola.Zero(hook, scope="later")])


def test_a_stream_gives_tokens_and_then_the_answer(model, server):
    stream = model.generate("The", 6, stop=[], stream=True)
    with pytest.raises(RuntimeError):
        stream.result  # noqa: B018
    tokens = list(stream)
    assert [token.id for token in tokens] == [1, 2, 3, 4, 5, 6]
    # A torn character shows when it is clear that nothing completes it.
    assert tokens[4].text == "" and tokens[5].text == "\ufffd<b>&"
    assert stream.result.tokens[0][:2] == ["The", " sky"]
    with pytest.raises(RuntimeError):
        list(stream)


@pytest.mark.parametrize("how", ["break", "close", "with"])
def test_leaving_a_stream_cancels_the_call(model, server, how):
    server.hold_after = 2
    stream = model.generate("The", 6, stop=[], stream=True)
    if how == "with":
        with stream:
            next(iter(stream))
    elif how == "close":
        tokens = iter(stream)
        next(tokens)
        stream.close()
    else:
        for _ in stream:
            break
    assert server.cancelled.wait(10)


def test_an_unreachable_server_is_asked_again(model, server):
    server.failures = [(grpc.StatusCode.UNAVAILABLE, "starting", ())]
    assert model.generate("The", 2, stop=[]).text == ["The sky"]


def test_errors_come_through(model, server):
    server.failures = [(grpc.StatusCode.INVALID_ARGUMENT, "top_p is 2", ())]
    with pytest.raises(cupola.InvalidArgument, match="top_p is 2"):
        model.generate("The", 2)
    server.drop_last_chunk = True
    with pytest.raises(cupola.DataLoss, match="end"):
        model.generate("The", 2)
    server.drop_last_chunk, server.extra_tokens = False, 1
    with pytest.raises(cupola.DataLoss, match="2 tokens of a text of 3"):
        model.generate("The", 2)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"top_k": -3}, "top_k"),
        ({"samples": 1.5}, "samples"),
        ({"interventions": ["zero"]}, r"interventions\[0\]"),
    ],
)
def test_what_has_no_message_is_refused_here(model, options, word):
    with pytest.raises(cupola.InvalidArgument, match=word):
        model.generate("The", **options)


def test_html_escapes_and_colours(model):
    page = model.generate("The", 7, stop=[])._repr_html_()
    assert "&lt;b&gt;&amp;" in page and "<b>&" not in page
    assert "--m:0.12" in page and "log-probability -1.000" in page


def test_command_line(server, monkeypatch):
    monkeypatch.setenv("CUPOLA_SERVER", server.target)
    monkeypatch.setenv("COLUMNS", "120")
    arguments = ["generate", "tiny", "The", "--max-new-tokens", "4"]
    result = CliRunner().invoke(cli.app, [*arguments, "--stop", " is"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("The sky is\n")
    assert "computed in 500 ms" in result.output
    result = CliRunner().invoke(
        cli.app, [*arguments, "--temperature", "0.7", "--seed", "3", "--json"]
    )
    answer = json.loads(result.output)
    assert answer["text"] == "The sky is blue"
    assert answer["token_ids"] == [1, 2, 3, 4]
    assert answer["finish"] == "length"
