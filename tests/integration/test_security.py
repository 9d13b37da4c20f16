"""TLS, tokens, roles and quotas, over both ports and as attackers try them."""

import datetime
import hashlib
import shutil
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request

import cupola
import grpc
import pytest
from cupola import _protos
from harness.certificates import Authority
from harness.server import Server, catalog_text
from harness.zoo import Zoo

ADMIN_METHODS = {
    ("Analysis", "DeleteMean"),
    ("Catalog", "Load"),
    ("Catalog", "Unload"),
    ("Catalog", "SelfCheck"),
    ("Catalog", "Register"),
    ("Catalog", "Unregister"),
    ("Catalog", "UploadDictionary"),
    ("Stores", "Delete"),
    ("Admin", "ClearCache"),
}


def line(name, role, token, more=""):
    return f"{name} {role} {hashlib.sha256(token.encode()).hexdigest()} {more}\n"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    zoo = Zoo(tmp_path_factory.mktemp("small"))
    zoo.add("gpt2", "standard")
    return zoo


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def guarded(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    yesterday = datetime.date.today() - datetime.timedelta(days=1)
    tokens = folder / "tokens"
    tokens.write_text(
        line("ada", "admin", "admin-secret")
        + line("bob", "read", "read-secret")
        + line("old", "admin", "old-secret", f"expires={yesterday}")
        + line("few", "read", "few-secret", "requests_per_minute=2")
        + line("one", "read", "one-secret", "concurrent=1")
        + line("bit", "read", "bit-secret", "bytes_per_minute=100")
    )
    with Server(folder, small.catalog(), f"--tokens={tokens}", "--reflection") as server:
        server.tokens = tokens
        yield server


def methods():
    for name in ("analysis", "catalog", "admin", "jobs", "datasets", "stores"):
        for service in getattr(_protos, name).DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield service.name, method.name


def call(channel, service, method, token=None, request=b"", more=()):
    """The code and the text that a method ends with."""
    ask = channel.unary_stream(f"/cupola.v1.{service}/{method}")
    metadata = list(more)
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))
    try:
        for _ in ask(request, timeout=30, metadata=metadata):
            pass
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


@pytest.fixture(scope="module")
def channel(guarded):
    with grpc.insecure_channel(guarded.grpc) as channel:
        yield channel


def test_every_method_asks_for_its_role(channel):
    every = set(methods())
    assert every > ADMIN_METHODS and len(every) > 30
    for service, method in sorted(every):
        name = f"{service}.{method}"
        assert call(channel, service, method)[0] == "UNAUTHENTICATED", name
        code, text = call(channel, service, method, "read-secret")
        if (service, method) in ADMIN_METHODS:
            assert code == "PERMISSION_DENIED" and "admin" in text, name
        else:
            assert code not in ("UNAUTHENTICATED", "PERMISSION_DENIED"), name
        code, _ = call(channel, service, method, "admin-secret")
        assert code not in ("UNAUTHENTICATED", "PERMISSION_DENIED"), name


@pytest.mark.parametrize(
    "token",
    ["", "wrong", "read-secre", "read-secret2", "x" * 600, "old-secret", "read-secret " * 3],
)
def test_bad_tokens(channel, token):
    code, text = call(channel, "Catalog", "List", token)
    assert code == "UNAUTHENTICATED"
    assert not token or token not in text


def test_other_schemes_and_two_tokens(channel):
    for metadata in (
        [("authorization", "Basic read-secret")],
        [("authorization", "read-secret")],
        [("authorization", "Bearer read-secret")] * 2,
    ):
        code, _ = call(channel, "Catalog", "List", more=metadata)
        assert code == "UNAUTHENTICATED", metadata


def test_metadata_beyond_the_limit(channel):
    code, text = call(channel, "Catalog", "List", "x" * 20_000)
    assert code == "RESOURCE_EXHAUSTED" and "metadata" in text.lower()
    assert call(channel, "Catalog", "List", "read-secret")[0] == "OK"


def test_health_is_free_and_reflection_is_not(guarded, channel):
    guarded.wait_until_loaded()
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=30) == b"\x08\x01"
    reflect = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    )
    ask = b"\x3a\x01*"  # list_services: "*"

    def services(metadata):
        return b"".join(reflect(iter([ask]), timeout=30, metadata=metadata))

    assert b"cupola.v1.Analysis" in services([("authorization", "Bearer read-secret")])
    for metadata in ([], [("authorization", "Bearer wrong")]):
        seen = []
        with pytest.raises(grpc.RpcError) as refused:
            seen.extend(reflect(iter([ask]), timeout=30, metadata=metadata))
        assert refused.value.code().name == "UNAUTHENTICATED"
        assert b"cupola.v1" not in b"".join(seen)
    # Nor is a stream that asks nothing kept.
    silent = threading.Event()
    streams = [reflect(iter(silent.wait, True), timeout=60) for _ in range(80)]
    try:
        for stream in streams:
            assert stream.code().name == "UNAUTHENTICATED"
    finally:
        silent.set()
    assert b"cupola.v1" in services([("authorization", "Bearer read-secret")])


def test_the_clients(guarded, small):
    guarded.wait_until_loaded()
    name = next(iter(small.dictionaries))
    with cupola.connect(guarded.grpc, token="read-secret") as client:
        assert client.dictionary(name).features([[1, 2, 3]]).csr.shape[0] == 3
        with pytest.raises(cupola.PermissionDenied, match="role admin"):
            client.unload(name)
    with cupola.connect(guarded.grpc) as client, pytest.raises(cupola.Unauthenticated):
        client.models()
    with pytest.raises(ValueError, match="printable"):
        cupola.connect(guarded.grpc, token="a\nb")


def test_what_a_client_made_is_its_own(guarded, small):
    guarded.wait_until_loaded()
    name = next(iter(small.dictionaries))
    connect = lambda token: cupola.connect(guarded.grpc, token=token)
    with connect("read-secret") as bob, connect("one-secret") as one, connect(
        "admin-secret"
    ) as ada:
        dataset = bob.dataset("bobs", [[1, 2, 3], [4, 5]])
        assert dataset.info.owner == "bob"
        rows = dataset.select(small.dictionaries[name][0])
        job = bob.dictionary(name).statistics(rows, top_k=2)
        assert job.wait().owner == "bob"
        # Others read, and change nothing.
        assert one.job(job.id).result().tokens == 5
        assert one.dataset("bobs").documents(0, 1) == [[1, 2, 3]]
        for change in (one.job(job.id).delete, one.job(job.id).resume, one.job(job.id).cancel):
            with pytest.raises(cupola.PermissionDenied, match='of "bob"; accepted: its owner'):
                change()
        with pytest.raises(cupola.PermissionDenied, match='dataset "bobs" is of "bob"'):
            one.dataset("bobs").delete()
        job.delete()
        dataset.delete()
        again = one.dataset("ones", [[1, 2]])
        other = one.dictionary(name).statistics([[1, 2, 3]], top_k=2)
        other.wait()
        ada.job(other.id).delete()
        ada.dataset("ones").delete()
        assert ada.jobs() == [] and ada.datasets() == [] and again.name == "ones"


def http(server, path, token=None, body=None, **headers):
    """The code of a GET, or of a POST of a JSON body."""
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(f"http://{server.http}{path}", body, headers)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as page:
            return page.status
    except urllib.error.HTTPError as error:
        return error.code


def test_http_pages(guarded):
    assert http(guarded, "/healthz") == 200
    guarded.wait_until_loaded()
    for path in ("/metrics", "/v1/openapi.json"):
        assert http(guarded, path) == 401
        assert http(guarded, path, "wrong") == 401
        assert http(guarded, path, "old-secret") == 401
        assert http(guarded, path, "read-secret") == 200
        assert http(guarded, path, "read-secret", Host="evil.example") == 403


def test_quotas_tell_when_to_come_again(guarded):
    guarded.wait_until_loaded()
    with cupola.connect(guarded.grpc, token="few-secret") as client:
        client.models()
        client.models()
        with pytest.raises(cupola.ResourceExhausted, match="2 requests per minute") as few:
            client.models()
        assert 0 < few.value.retry_after <= 30
    with cupola.connect(guarded.grpc, token="bit-secret") as client:
        client.models()
        with pytest.raises(cupola.ResourceExhausted, match="100 bytes per minute") as bit:
            client.models()
        assert bit.value.retry_after > 0
    with cupola.connect(guarded.grpc, token="read-secret") as client:
        client.models()  # others are free


def test_concurrent_requests(guarded, small):
    guarded.wait_until_loaded()
    with cupola.connect(guarded.grpc, token="one-secret") as client:
        model = client.model(next(iter(small.models)))
        tokens = iter(model.generate([[1, 2, 3]], 60, stream=True))
        next(tokens)
        refused = None
        try:
            client.models()
        except cupola.ResourceExhausted as error:
            refused = error
        for _ in tokens:
            pass
        client.models()
    assert "1 at a time" in refused.message and refused.retry_after > 0


def test_no_token_in_logs_or_metrics(guarded):
    log = guarded.log()
    request = urllib.request.Request(f"http://{guarded.http}/metrics")
    request.add_header("Authorization", "Bearer admin-secret")
    with urllib.request.urlopen(request, timeout=30) as page:
        text = log + page.read().decode()
    for token in ("admin-secret", "read-secret", "old-secret"):
        assert token not in text
        assert hashlib.sha256(token.encode()).hexdigest() not in text
    assert '"client":"bob"' in log


def test_the_file_is_followed_and_a_broken_one_is_not(guarded, channel):
    good = guarded.tokens.read_text()

    def until(token, wanted):
        end = time.monotonic() + 20
        while call(channel, "Catalog", "List", token)[0] != wanted:
            assert time.monotonic() < end
            time.sleep(0.05)

    try:
        guarded.tokens.write_text(good + line("new", "read", "new-secret"))
        until("new-secret", "OK")
        guarded.tokens.write_text("new read nonsense\n")
        end = time.monotonic() + 20
        while "tokens kept" not in guarded.log():
            call(channel, "Catalog", "List", "new-secret")
            assert time.monotonic() < end
            time.sleep(0.05)
        assert call(channel, "Catalog", "List", "new-secret")[0] == "OK"
        assert "nonsense" not in guarded.log()
    finally:
        guarded.tokens.write_text(good)
    until("new-secret", "UNAUTHENTICATED")


@pytest.fixture(scope="module")
def encrypted(small, authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encrypted")
    certificate, key = authority.issue("server")
    flags = [f"--tls_cert={folder / 'cert.pem'}", f"--tls_key={folder / 'key.pem'}"]
    shutil.copy(certificate, folder / "cert.pem")
    shutil.copy(key, folder / "key.pem")
    with Server(folder, small.catalog(), *flags) as server:
        yield server


def presented_serial(address, authority):
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=authority.ca)
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return int(secure.getpeercert()["serialNumber"], 16)


def test_tls(encrypted, authority, tmp_path):
    with cupola.connect(encrypted.grpc, tls=str(authority.ca)) as client:
        assert client.models()
    assert encrypted.get("/healthz") == "ok\n"  # plain, on loopback
    stranger = Authority(tmp_path)
    with (
        cupola.connect(encrypted.grpc, tls=str(stranger.ca), deadline=5) as client,
        pytest.raises((cupola.Unavailable, cupola.DeadlineExceeded)),
    ):
        client.models()


def test_plaintext_to_the_tls_port(encrypted, authority):
    with (
        cupola.connect(encrypted.grpc, deadline=5) as client,
        pytest.raises((cupola.Unavailable, cupola.DeadlineExceeded)),
    ):
        client.models()
    for address in (encrypted.grpc, encrypted.http):
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=15) as plain:
            plain.sendall(b"\x16\x03\x01\xff\xffgarbage")
    with cupola.connect(encrypted.grpc, tls=str(authority.ca)) as client:
        assert client.models()


def test_http_to_the_grpc_port(guarded, channel):
    host, _, port = guarded.grpc.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=15) as plain:
        plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        plain.settimeout(15)
        answer = b""
        try:
            while piece := plain.recv(4096):
                answer += piece
        except (TimeoutError, ConnectionError):
            pass
    assert b"cupola_" not in answer
    assert call(channel, "Catalog", "List", "read-secret")[0] == "OK"


def test_renewed_certificates_are_presented(encrypted, authority):
    folder = encrypted.folder
    certificate, key = authority.issue("renewed", serial=77)
    with cupola.connect(encrypted.grpc, tls=str(authority.ca)) as standing:
        standing.models()
        shutil.copy(certificate, folder / "cert.pem")  # not the old key's
        end = time.monotonic() + 20
        while "TLS files kept" not in encrypted.log():
            assert presented_serial(encrypted.grpc, authority) == 1
            assert time.monotonic() < end
            time.sleep(0.1)
        shutil.copy(key, folder / "key.pem")
        while presented_serial(encrypted.grpc, authority) != 77:
            assert time.monotonic() < end
            time.sleep(0.1)
        standing.models()


def test_clients_show_certificates(small, authority, tmp_path):
    certificate, key = authority.issue("server")
    mine = authority.issue("client")
    theirs = Authority(tmp_path / "other").issue("client")
    flags = [
        f"--tls_cert={certificate}",
        f"--tls_key={key}",
        f"--tls_client_ca={authority.ca}",
    ]
    with Server(tmp_path / "server", small.catalog(), *flags) as server:
        with cupola.connect(server.grpc, tls=(authority.ca, *mine)) as client:
            assert client.models()
        for tls in (authority.ca, (authority.ca, *theirs)):
            with (
                cupola.connect(server.grpc, tls=tls, deadline=5) as client,
                pytest.raises((cupola.Unavailable, cupola.DeadlineExceeded)),
            ):
                client.models()
        # Plain HTTP is no way around.
        for method in ("Catalog/List", "Catalog/Unload", "Admin/ClearCache"):
            assert http(server, f"/v1/{method}", body=b"{}") == 404
        assert http(server, "/v1/openapi.json") == 404
        assert http(server, "/healthz") == 200 and http(server, "/metrics") == 200
        assert "no JSON over HTTP" in server.log()
    # With tokens, those open it.
    tokens = tmp_path / "tokens"
    tokens.write_text(line("bob", "read", "read-secret"))
    with Server(tmp_path / "both", small.catalog(), *flags, f"--tokens={tokens}") as server:
        assert http(server, "/v1/Catalog/List", body=b"{}") == 401
        assert http(server, "/v1/Catalog/List", "read-secret", body=b"{}") == 200
        assert http(server, "/v1/Admin/ClearCache", "read-secret", body=b"{}") == 403


def test_what_does_not_fit_ends_the_start(small, authority, tmp_path):
    certificate, key = authority.issue("server")
    other = authority.issue("other")[1]
    (tmp_path / "empty").write_text("")
    for flags, says in (
        ([f"--tls_cert={certificate}", f"--tls_key={other}"], "another key"),
        ([f"--tls_cert={key}", f"--tls_key={key}"], "certificate"),
        ([f"--tls_cert={certificate}", f"--tls_key={tmp_path / 'none'}"], "none"),
        ([f"--tokens={tmp_path / 'empty'}"], "no token"),
    ):
        with pytest.raises(RuntimeError) as refused:
            Server(tmp_path / "server", small.catalog(), *flags)
        assert says in str(refused.value), flags


@pytest.mark.parametrize("name", ["../secret", "/etc", "gpt2/../../secret", "..\\x", "gpt2\0"])
def test_names_are_no_paths(guarded, channel, name):
    guarded.wait_until_loaded()
    for method in ("Load", "Describe", "Unload", "SelfCheck"):
        request = _protos.catalog.DescribeRequest(name=name).SerializeToString()
        code, _ = call(channel, "Catalog", method, "admin-secret", request)
        assert code == "NOT_FOUND", (method, name)


def test_links_out_of_the_model_root(small, tmp_path):
    folder = next(iter(small.models.values()))
    root = tmp_path / "root"
    (root / "snapshot").mkdir(parents=True)
    shutil.copytree(folder, root / "blobs")
    for file in (root / "blobs").iterdir():  # as Hugging Face keeps snapshots
        (root / "snapshot" / file.name).symlink_to(file)
    shutil.copytree(root / "snapshot", root / "leaky", symlinks=True)
    (root / "leaky" / "config.json").unlink()
    (root / "leaky" / "config.json").symlink_to(folder / "config.json")
    for name, good in (("snapshot", True), ("leaky", False)):
        catalog = catalog_text({"it": root / name}, {})
        flags = [f"--model_root={root}"]
        if not good:
            with pytest.raises(RuntimeError, match="model root"):
                Server(tmp_path / name, catalog, *flags)
            continue
        with Server(tmp_path / name, catalog, *flags) as server:
            server.wait_until_loaded()
            with cupola.connect(server.grpc) as client:
                assert client.describe("it").state == "resident"
