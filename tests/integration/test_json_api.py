"""The JSON API: answers are those of gRPC, refusals have HTTP's codes."""

import base64
import concurrent.futures
import contextlib
import json
import re
import signal
import socket
import struct
import time
import urllib.error
import urllib.request

import cupola
import numpy as np
import pytest
from cupola import _protos
from harness.server import Server
from harness.zoo import Zoo

PAGE = "https://page.example"
DTYPES = {"FLOAT32": "<f4", "INT32": "<i4", "INT64": "<i8", "UINT32": "<u4"}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    zoo = Zoo(tmp_path_factory.mktemp("small"))
    zoo.add("gpt2", "standard")
    return zoo


@pytest.fixture(scope="module")
def server(zoo, tmp_path_factory):
    flags = [f"--http_origins={PAGE}", "--http_answer_bytes=2M"]
    with Server(tmp_path_factory.mktemp("api"), zoo.catalog(), *flags) as server:
        server.wait_until_loaded()
        yield server


@pytest.fixture(scope="module")
def client(server):
    with cupola.connect(server.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def names(zoo):
    return next(iter(zoo.models)), next(iter(zoo.dictionaries))


def post(server, path, body, method="POST", **headers):
    """(code, headers, bytes) of a request; a body that is no str is JSON."""
    if not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    headers.setdefault("Content-Type", "application/json")
    request = urllib.request.Request(
        f"http://{server.http}/v1/{path}", body, headers, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as page:
            return page.status, page.headers, page.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def ask(server, path, body, **headers):
    code, _, answer = post(server, path, body, **headers)
    assert code == 200, answer
    return json.loads(answer)


def array(tensor):
    data = np.frombuffer(base64.b64decode(tensor["data"]), DTYPES[tensor["dtype"]])
    return data.reshape([int(extent) for extent in tensor["shape"]])


def refused(server, path, body, code, name, *says, **headers):
    got, _, answer = post(server, path, body, **headers)
    assert got == code, answer
    error = json.loads(answer)
    assert error["code"] == name and isinstance(error["details"], list)
    for text in says:
        assert text in error["message"]


PROMPTS = {"prompts": [{"tokens": {"ids": [1, 2, 3, 4]}}, {"tokens": {"ids": [7, 5]}}]}


def test_unary(server, client, names):
    listed = ask(server, "Catalog/List", {})
    assert {model["name"] for model in listed["models"]} == {
        model.name for model in client.models()
    }
    assert ask(server, "Admin/GetServerInfo", {})["maxMessageBytes"] == str(32 << 20)
    tokens = ask(server, "Analysis/Tokenize", {"model": names[0], "prompts": PROMPTS})
    assert tokens["prompts"][0]["ids"] == [1, 2, 3, 4]


def test_features_are_those_of_grpc(server, client, names):
    answer = ask(server, "Analysis/GetFeatures", {"dictionary": names[1], "prompts": PROMPTS})
    wanted = client.dictionary(names[1]).features([[1, 2, 3, 4], [7, 5]]).csr
    rows = answer["features"]
    assert np.array_equal(array(rows["indptr"]), wanted.indptr)
    assert np.array_equal(array(rows["indices"]), wanted.indices)
    assert np.array_equal(array(rows["values"]), wanted.data)
    assert answer["provenance"]["model"] == names[0]


def read_frames(body):
    (size,) = struct.unpack("<Q", body[:8])
    assert (8 + size) % 8 == 0
    header = json.loads(body[8 : 8 + size])
    arrays = {}
    for tensor in header["tensors"]:
        assert tensor["offset"] % 8 == 0
        start = 8 + size + tensor["offset"]
        data = body[start : start + tensor["bytes"]]
        assert len(data) == tensor["bytes"]
        arrays[tensor["path"]] = np.frombuffer(data, DTYPES[tensor["dtype"]]).reshape(
            tensor["shape"]
        )
    return header["message"], arrays


def test_chunked_answers_come_whole_and_raw(server, client, names):
    """Above 1 MiB gRPC sends chunks."""
    ids = [[(3 * i + j) % 50 for j in range(16)] for i in range(64)]
    request = {
        "model": names[0],
        "hooks": ["blocks.0.mlp.hook_post", "blocks.1.hook_resid_pre", "blocks.1.mlp.hook_post"],
        "prompts": {"prompts": [{"tokens": {"ids": one}} for one in ids]},
    }
    code, headers, body = post(
        server, "Analysis/GetActivations", request, Accept="application/octet-stream"
    )
    assert code == 200 and headers["Content-Type"] == "application/octet-stream"
    message, arrays = read_frames(body)
    wanted = client.model(names[0]).activations(ids, hooks=request["hooks"])
    assert [hook["name"] for hook in message["hooks"]] == request["hooks"]
    for index, hook in enumerate(request["hooks"]):
        for prompt in range(len(ids)):
            got = arrays[f"hooks[{index}].prompts[{prompt}]"]
            assert np.array_equal(got, wanted[hook][prompt])
    # As JSON, the same.
    answer = ask(server, "Analysis/GetActivations", request)
    got = array(answer["hooks"][1]["prompts"][5])
    assert np.array_equal(got, wanted[request["hooks"][1]][5])


def test_too_large_an_answer_names_both_sizes(server, names):
    ids = [[(i + j) % 50 for j in range(16)] for i in range(300)]
    request = {
        "model": names[0],
        "hooks": ["blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post", "blocks.1.hook_resid_pre"],
        "prompts": {"prompts": [{"tokens": {"ids": one}} for one in ids]},
    }
    refused(
        server, "Analysis/GetActivations", request,
        429, "RESOURCE_EXHAUSTED", str(2 << 20), "bytes",
    )


def test_generated_text_comes_as_one(server, client, names):
    body = {
        "model": names[0],
        "prompts": {"prompts": [{"tokens": {"ids": [1, 2, 3]}}]},
        "maxNewTokens": 5,
    }
    answer = ask(server, "Analysis/Generate", body)
    wanted = [token for token in client.model(names[0]).generate([[1, 2, 3]], 5, stream=True)]
    assert [token["chosen"]["id"] for token in answer["tokens"]] == [token.id for token in wanted]
    assert "provenance" in answer["end"]


def test_refusals(server, names):
    features = "Analysis/GetFeatures"
    invalid = (400, "INVALID_ARGUMENT")
    refused(server, features, {"dictionary": "no"}, *invalid)
    nobody = {"dictionary": "no", "prompts": PROMPTS}
    refused(server, features, nobody, 404, "NOT_FOUND", '"no"')
    refused(server, "Analysis/Nothing", {}, 404, "NOT_FOUND", "/v1/SERVICE/METHOD")
    refused(server, "Nothing/GetFeatures", {}, 404, "NOT_FOUND")
    refused(server, "Jobs/Watch", {"id": "x"}, 404, "NOT_FOUND")
    refused(server, "Jobs/Get", {"id": "x"}, 404, "NOT_FOUND")
    for body in ("", "[]", "null", "1", '"x"', "{", "{} {", "\xff", "{" * 5000,
                 '{"colour": 1}', '{"dictionary": 1}', '{"topK": -1}', '{"topK": 1e99}',
                 '{"dictionary": "\\ud800"}', '{"latents": ["x"]}'):
        refused(server, features, body, *invalid, "body")
    for kind in ("text/plain", "", "application/x-www-form-urlencoded"):
        refused(server, features, {}, 415, "INVALID_ARGUMENT", "application/json", Content_Type=kind)
    for timeout in ("0", "-1", "nan", "soon", "1e9"):
        refused(server, features, {}, *invalid, "Cupola-Timeout", Cupola_Timeout=timeout)


def test_other_methods(server):
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        code, headers, _ = post(server, "Catalog/List", b"", method=method)
        assert code == 405 and "POST" in headers["Allow"]


def test_bodies_above_the_limit(server):
    body = b'{"dictionary": "' + b"x" * (33 << 20) + b'"}'
    try:
        code, _, answer = post(server, "Analysis/GetFeatures", body)
    except (urllib.error.URLError, ConnectionError):
        code = 413  # the connection was closed while it was sent
    assert code == 413
    assert ask(server, "Catalog/List", {})


def test_headers_above_the_limit(server):
    try:
        code, _, _ = post(server, "Catalog/List", {}, X_Long="x" * (20 << 10))
    except (urllib.error.URLError, ConnectionError):
        code = 413  # the connection was closed while it was sent
    assert 400 <= code < 500
    assert ask(server, "Catalog/List", {})


def test_a_deadline_passes(server, names):
    ids = [[(i + j) % 50 for j in range(16)] for i in range(2000)]
    request = {
        "dictionary": names[1],
        "prompts": {"prompts": [{"tokens": {"ids": one}} for one in ids]},
    }
    refused(
        server, "Analysis/GetFeatures", request,
        504, "DEADLINE_EXCEEDED", Cupola_Timeout="0.001",
    )


def test_pages_of_other_origins(server):
    code, headers, _ = post(server, "Catalog/List", {}, Origin=PAGE)
    assert code == 200 and headers["Access-Control-Allow-Origin"] == PAGE
    assert "Access-Control-Allow-Credentials" not in headers
    asks = {
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "authorization,content-type",
    }
    for path, allowed in (("Catalog/List", "POST"), ("openapi.json", "GET, HEAD")):
        code, headers, _ = post(server, path, b"", "OPTIONS", Origin=PAGE, **asks)
        assert code == 204 and headers["Access-Control-Allow-Methods"] == allowed
        assert headers["Access-Control-Allow-Origin"] == PAGE
        assert "authorization" in headers["Access-Control-Allow-Headers"]
    for method, more in (("POST", {}), ("OPTIONS", asks)):
        code, headers, _ = post(
            server, "Catalog/List", {}, method, Origin="https://evil.example", **more
        )
        assert code == 403 and "Access-Control-Allow-Origin" not in headers
    own = f"https://{server.http}"  # behind a proxy that encrypts
    assert post(server, "Catalog/List", {}, Origin=own)[0] == 200
    code, _, _ = post(server, "Catalog/List", {}, Host="evil.example")
    assert code == 403


def test_health_while_many_ask(server, names):
    body = {"dictionary": names[1], "prompts": PROMPTS}
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        asked = [pool.submit(post, server, "Analysis/GetFeatures", body) for _ in range(300)]
        while not all(future.done() for future in asked):
            assert server.get("/healthz") == "ok\n"
    codes = {future.result()[0] for future in asked}
    assert 200 in codes and codes <= {200, 429}


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def logged(server, *texts):
    """The first line of the log that has all of the texts, once it is written."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for line in server.log().splitlines():
            if all(text in line for text in texts):
                return json.loads(line)
        time.sleep(0.05)
    raise AssertionError(f"no line with {texts}:\n{server.log()[-3000:]}")


def test_calls_are_counted_and_logged_as_all_others(server, names):
    body = {"dictionary": names[1], "prompts": PROMPTS}
    code, headers, _ = post(server, "Analysis/GetFeatures", body, traceparent=TRACE)
    assert code == 200 and headers["traceparent"] == TRACE
    line = logged(server, TRACE.split("-")[1])
    assert line["method"] == "GetFeatures" and line["client"] == "127.0.0.1"
    assert 'method="GetFeatures"' in server.get("/metrics")
    # Errors, too; and what is no traceparent is passed over.
    code, headers, _ = post(server, "Analysis/GetFeatures", {}, traceparent=TRACE)
    assert code == 400 and headers["traceparent"] == TRACE
    for bad in ("00-xyz", TRACE.replace("-b", "-"), "00-" + "0" * 32 + TRACE[35:], "\xe9"):
        code, headers, _ = post(server, "Analysis/GetFeatures", body, traceparent=bad)
        assert code == 200 and "traceparent" not in headers, bad


def connect(server, head, body=b"", announced=None):
    """A connection that has sent a POST of /v1/`head` with no answer read yet."""
    host, _, port = server.http.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=60)
    length = len(body) if announced is None else announced
    plain.sendall(
        f"POST /v1/{head} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
        + body
    )
    return plain


def read_all(plain, pause=0.0):
    answer = b""
    while piece := plain.recv(1 << 16):
        answer += piece
        time.sleep(pause)
    return answer


def test_bodies_in_chunks(server):
    host, _, port = server.http.rpartition(":")
    head = (
        "POST /v1/Catalog/List HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    )
    for more in ("", "Content-Length: 0\r\n"):  # which chunks override
        with socket.create_connection((host, int(port)), timeout=60) as plain:
            plain.sendall(f"{head}{more}\r\n1\r\n{{\r\n1\r\n}}\r\n0\r\n\r\n".encode())
            answer = read_all(plain)
        assert answer.startswith(b"HTTP/1.1 200 ") and b'"models"' in answer
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        plain.sendall(f"{head}\r\n".encode())
        piece = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                plain.sendall(piece)
            assert read_all(plain).startswith(b"HTTP/1.1 413 ")
    assert ask(server, "Catalog/List", {})


def test_a_question_ends_with_its_client(server, names):
    body = {
        "model": names[0],
        "prompts": {"prompts": [{"tokens": {"ids": [1, 2, 3]}}] * 64},
        "maxNewTokens": 60,
        "samples": 8,
        "temperature": 1.0,
    }
    plain = connect(server, "Analysis/Generate", json.dumps(body).encode())
    time.sleep(0.1)
    plain.close()
    assert logged(server, '"Generate"', "CANCELLED")["client"] == "127.0.0.1"


def test_what_would_grow_in_memory_is_refused_before(server):
    """16 million objects of two bytes each, that would be gigabytes of messages."""
    before = server.resident_bytes(peak=True)
    objects = b"{}," * ((31 << 20) // 3)
    body = b'{"prompts":{"prompts":[' + objects + b"{}]}}"
    refused(
        server, "Analysis/GetFeatures", body,
        429, "RESOURCE_EXHAUSTED", "bytes of memory", str(1 << 30),
    )
    assert server.resident_bytes(peak=True) - before < 200 << 20
    # Large tensors are no such case.
    rows = {"dtype": "FLOAT32", "shape": ["1", "3999999"], "data": "AAAA" * 5_333_332}
    refused(
        server, "Analysis/GetFeatures", {"dictionary": "no", "inputs": rows},
        404, "NOT_FOUND", '"no"',
    )


def test_64_bit_numbers_as_described(server, names):
    spec = json.loads(server.get("/v1/openapi.json"))
    seed = spec["components"]["schemas"]["GenerateRequest"]["properties"]["seed"]
    for value in (0, 2**63, 2**64 - 1):
        assert re.fullmatch(seed["pattern"], str(value))
        body = {
            "model": names[0],
            "prompts": {"prompts": [{"tokens": {"ids": [1]}}]},
            "maxNewTokens": 1,
            "seed": str(value),
        }
        assert ask(server, "Analysis/Generate", body)
    for value in ("-1", "1e3", "01", "123456789012345678901"):
        assert not re.fullmatch(seed["pattern"], value)


def test_the_end_waits_for_answers_on_their_way(zoo, tmp_path):
    name = next(iter(zoo.models))
    ids = [[(7 * i + j) % 50 for j in range(16)] for i in range(1500)]
    hooks = [f"blocks.{layer}.mlp.hook_post" for layer in range(2)]
    body = {
        "model": name,
        "hooks": hooks,
        "prompts": {"prompts": [{"tokens": {"ids": one}} for one in ids]},
    }
    with Server(tmp_path, zoo.catalog()) as server:
        server.wait_until_loaded()
        plain = connect(server, "Analysis/GetActivations", json.dumps(body).encode())
        head = plain.recv(4096)
        assert head.startswith(b"HTTP/1.1 200 ")
        server.process.send_signal(signal.SIGTERM)
        rest = read_all(plain, pause=0.005)
        assert server.stop() == 0
    text = (head + rest).split(b"\r\n\r\n", 1)
    announced = int(re.search(rb"Content-Length: (\d+)", text[0])[1])
    assert announced > 8 << 20 and len(text[1]) == announced
    assert json.loads(text[1])["hooks"][1]["name"] == hooks[1]


# Without an end, and a file.
STREAMS = {"cupola.v1.Jobs.Watch", "cupola.v1.Jobs.ExportShard"}


def test_the_description_names_every_method(server):
    spec = json.loads(server.get("/v1/openapi.json"))
    paths = set(spec["paths"])
    for name in ("analysis", "catalog", "admin", "jobs", "datasets"):
        for service in getattr(_protos, name).DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                here = f"/v1/{service.name}/{method.name}" in paths
                assert here == (
                    method.full_name not in STREAMS and not method.client_streaming
                )
    text = json.dumps(spec)
    for name in spec["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text
