"""The connection and the catalog, against the fake server."""

import threading

import grpc
import pytest

import cupola

CODE = grpc.StatusCode


def test_models(client):
    (info,) = client.models()
    assert (info.name, info.state, info.family) == ("tiny", "resident", "llama")
    assert info.digest == "01" * 32
    assert info.dtype == "float32"
    assert info.bos_token_id == 0  # zero is a token, not "none"
    assert info.resident_processing == ("raw",)


def test_dictionaries(client):
    sae, pair = client.dictionaries()
    assert (sae.name, sae.kind, sae.d_sae, sae.k) == ("tiny/sae", "sae", 50, 3)
    assert sae.measured == cupola.Measurement(255, 3.0, 0.25, 7)
    assert sae.measured_out is None
    assert (sae.expected_l0, sae.expected_fvu) == (3.0, None)
    assert sae.warnings == ("FVU is far off",)
    assert sae.tap == "" and sae.processing == "raw"
    assert pair.kind == "pair" and pair.measured is None


def test_describe(client):
    info = client.describe("tiny")
    assert info.hook_points[1] == cupola.HookPoint(
        "blocks.0.attn.hook_pattern", (2, -1)
    )
    assert client.model("tiny").hook_points == info.hook_points
    assert client.describe("tiny/sae").kind == "sae"


def test_load_unload_and_self_check(client, server):
    assert client.load("tiny", processing="folded").name == "tiny"
    request, metadata = server.last("Load")
    assert request.processing == cupola.client._protos.common.FOLDED
    assert metadata["cupola-model"] == "tiny"
    assert client.unload("tiny/sae").name == "tiny/sae"
    assert client.self_check("tiny/sae").measured.tokens == 255


def test_handles_are_of_the_right_kind(client):
    assert client.model("tiny").processing == "raw"
    assert client.dictionary("tiny/sae").processing is None
    for call, part in [
        (lambda: client.model("tiny/sae"), "not a model"),
        (lambda: client.dictionary("tiny"), "not a dictionary"),
        (lambda: client.dictionary("tiny/pair"), "tiny/pair:in"),
        (lambda: client.dictionary("tiny/sae:in"), "no pair"),
        (lambda: client.pair("tiny/sae"), "no pair"),
        (lambda: client.model("tiny", processing="other"), "processing"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=part):
            call()
    with pytest.raises(cupola.NotFound, match="there are tiny") as caught:
        client.model("nope")
    assert isinstance(caught.value, LookupError)


def test_pair(client, server):
    pair = client.pair("tiny/pair")
    assert pair.input.name == "tiny/pair:in"
    assert pair.output.name == "tiny/pair:out"
    pair.output.features("The sky")
    assert server.last("GetFeatures")[0].dictionary == "tiny/pair:out"
    other = client.pair("tiny/sae", pair.output)
    assert other.input.name == "tiny/sae" and other.output is pair.output


def test_server_and_cache(client):
    assert client.server_info().devices == ("cpu",)
    assert client.cache_statistics().hits == 3
    assert client.clear_cache().hits == 0
    status = client.status()
    assert status.serving and status.cache.disk_bytes == 2048


def test_not_serving(client, server):
    server.health = b"\x08\x02"
    assert not client.status().serving


@pytest.mark.parametrize(
    "code, kind",
    [
        (CODE.INVALID_ARGUMENT, cupola.InvalidArgument),
        (CODE.NOT_FOUND, cupola.NotFound),
        (CODE.FAILED_PRECONDITION, cupola.FailedPrecondition),
        (CODE.RESOURCE_EXHAUSTED, cupola.ResourceExhausted),
        (CODE.DEADLINE_EXCEEDED, cupola.DeadlineExceeded),
        (CODE.CANCELLED, cupola.Cancelled),
        (CODE.UNAUTHENTICATED, cupola.Unauthenticated),
        (CODE.PERMISSION_DENIED, cupola.PermissionDenied),
        (CODE.UNIMPLEMENTED, cupola.Unimplemented),
        (CODE.INTERNAL, cupola.Internal),
        (CODE.DATA_LOSS, cupola.DataLoss),
        (CODE.ABORTED, cupola.CupolaError),
    ],
)
def test_errors_of_unary_and_streamed_answers(client, server, code, kind):
    model = client.model("tiny")
    for method, call in [
        ("List", client.models),
        ("GetActivations", lambda: model.activations("The", ["b"])),
    ]:
        server.failures = [(code, "top_k: 5 is wrong", ())]
        with pytest.raises(cupola.CupolaError, match="top_k: 5") as caught:
            call()
        assert type(caught.value) is kind
        assert caught.value.code == code.name
        # Such an answer would only repeat: it is not asked for again.
        assert server.requests[-1][0] == method
        assert server.requests[-2][0] != method


def test_retry_delay_of_a_full_queue(client, server):
    server.failures = [
        (CODE.RESOURCE_EXHAUSTED, "queue", [("grpc-retry-pushback-ms", "1500")])
    ]
    with pytest.raises(cupola.ResourceExhausted) as caught:
        client.models()
    assert caught.value.retry_after == 1.5


def test_unavailable_is_retried(client, server):
    down = (CODE.UNAVAILABLE, "draining", ())
    server.failures = [down, down, down]
    assert client.models()  # the fourth attempt
    assert len(server.requests) == 4
    # A proxy may send what is asked again elsewhere.
    attempts = [m.get("cupola-attempt") for _, _, m in server.requests]
    assert attempts == [None, "1", "2", "3"]
    server.failures = [down] * 4
    with pytest.raises(cupola.Unavailable, match=server.target):
        client.models()
    assert len(server.requests) == 8


def test_no_server():
    client = cupola.connect("127.0.0.1:1", deadline=20)
    with client, pytest.raises(cupola.Unavailable, match="127.0.0.1:1"):
        client.models()


def test_deadline(server):
    server.stall = threading.Event()
    with cupola.connect(server.target, deadline=0.2) as client:
        with pytest.raises(cupola.DeadlineExceeded) as caught:
            client.models()
        assert isinstance(caught.value, TimeoutError)
    assert server.cancelled.wait(30)


def test_an_interrupted_call_is_cancelled(client, server, monkeypatch):
    model = client.model("tiny")

    def interrupted(call, tensors):
        assert server.stalled.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(cupola._tensors, "receive", interrupted)
    server.stall = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        model.activations("The", ["b"])
    assert server.cancelled.wait(30)


def test_a_closed_client(server):
    client = cupola.connect(server.target)
    client.models()
    client.close()
    with pytest.raises(cupola.CupolaError, match=server.target):
        client.models()


def test_metadata(server):
    with cupola.connect(server.target, token="secret") as client:
        model = client.model("tiny")
        keys = []
        for text in ("The", "The", "The sky"):
            model.tokenize(text)
            _, metadata = server.last("Tokenize")
            assert metadata["authorization"] == "Bearer secret"
            assert metadata["cupola-model"] == "tiny"
            keys.append(metadata["cupola-key"])
        assert keys[0] == keys[1] != keys[2]
        client.dictionary("tiny/sae").features("The")
        assert server.last("GetFeatures")[1]["cupola-model"] == "tiny"


def test_no_token_no_authorization(client, server):
    client.models()
    assert "authorization" not in server.last("List")[1]


def test_threads_share_a_client(client):
    model = client.model("tiny")
    found = [None] * 8

    def ask(i):
        found[i] = model.tokenize(["The sky"] * (i + 1))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[[0, 1, 2]] * (i + 1) for i in range(8)]


def test_targets():
    with cupola.connect("host") as client:
        assert client.target == "host:7070"
    with cupola.connect() as client:
        assert client.target == "localhost:7070"
    with pytest.raises(ValueError, match="target"):
        cupola.connect("")
    for deadline in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="deadline"):
            cupola.connect("host", deadline=deadline)


def test_tls(tmp_path):
    with pytest.raises(FileNotFoundError):
        cupola.connect("host", tls=tmp_path / "missing.pem")
    for tls in (False, True, grpc.ssl_channel_credentials()):
        cupola.connect("host", tls=tls).close()
