"""Entries that are registered, uploaded, replaced and removed while a server
runs."""

import hashlib
import json
import shutil
import signal
import threading
import time

import cupola
import grpc
import numpy as np
import pytest
from cupola import _protos
from harness import checkpoints
from harness.server import Server, catalog_text
from harness.zoo import make_dictionaries
from safetensors.numpy import load_file

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
PAIR_HOOK = "blocks.1.ln2.hook_normalized"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two models and their SAEs, below a root."""
    root = tmp_path_factory.mktemp("root")
    checkpoints.make(root, 2)
    return root


@pytest.fixture
def root(files, tmp_path):
    shutil.copytree(files, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def catalog(root):
    return catalog_text({"m0": root / "m0"}, {"m0/sae": ("m0", root / "m0-sae")})


def start(tmp_path, catalog, root, *flags):
    server = Server(
        tmp_path / "server", catalog, f"--model_root={root}", "--no-self_check", *flags
    )
    server.wait_until_loaded()
    return server


def names(client):
    return [e.name for e in (*client.models(), *client.dictionaries())]


def features(client, name):
    return client.dictionary(name).features(PROMPT)


def test_registered_entries_serve_and_outlive_the_server(tmp_path, catalog, root):
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            assert client.register_model("new", "m1").name == "new"
            info = client.register_dictionary("new/sae", "new", "m1-sae")
            assert info.model == "new"
            assert client.load("new/sae").state == "resident"
            with pytest.raises(cupola.CupolaError):  # a half of what is no pair
                client.load("none:in")
            before = features(client, "new/sae")
            assert before.csr.nnz > 0
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            assert names(client) == ["m0", "new", "m0/sae", "new/sae"]
            again = features(client, "new/sae")
            assert again.provenance.from_cache
            assert (again.csr != before.csr).nnz == 0


def test_what_cannot_be_registered(tmp_path, catalog, root):
    outside = tmp_path / "outside"
    shutil.copytree(root / "m1", outside)
    (root / "link").symlink_to(outside)
    linked = root / "linked"
    shutil.copytree(root / "m1", linked)
    (linked / "model.safetensors").unlink()
    (linked / "model.safetensors").symlink_to(outside / "model.safetensors")
    snapshot = root / "snapshot"  # links inside the root are Hugging Face's way
    shutil.copytree(root / "m1", snapshot)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../m1/model.safetensors")
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            for path, says in [
                ("../outside", "root"),
                ("m1/../../outside", "root"),
                (str(outside), "root"),
                ("link", "root"),
                ("linked", "model.safetensors: leads to"),
                ("missing", "a folder"),
                ("m1/config.json", "a folder"),
                ("", "path"),
            ]:
                with pytest.raises(cupola.InvalidArgument, match=says):
                    client.register_model("new", path)
            with pytest.raises(cupola.CupolaError, match="m0") as clash:
                client.register_model("m0", "m1")
            assert clash.value.code == "ALREADY_EXISTS"
            with pytest.raises(cupola.CupolaError, match="m0/sae"):
                client.register_dictionary("m0/sae", "m0", "m0-sae")
            with pytest.raises(cupola.InvalidArgument, match="nothing"):
                client.register_dictionary("d", "nothing", "m0-sae")
            with pytest.raises(cupola.InvalidArgument, match="name"):
                client.register_model("no good", "m1")
            assert names(client) == ["m0", "m0/sae"]
            assert client.register_model("new", "snapshot").name == "new"
            assert client.load("new").state == "resident"


def test_without_a_root_nothing_is_registered(tmp_path, catalog, root):
    with Server(tmp_path / "server", catalog, "--no-self_check") as server:
        with cupola.connect(server.grpc) as client:
            with pytest.raises(cupola.FailedPrecondition, match="model_root"):
                client.register_model("new", str(root / "m1"))


def test_unregister(tmp_path, catalog, root):
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            client.register_model("new", "m1")
            client.register_dictionary("new/sae", "new", "m1-sae")
            with pytest.raises(cupola.FailedPrecondition, match="new/sae"):
                client.unregister("new")
            with pytest.raises(cupola.FailedPrecondition, match="catalog file"):
                client.unregister("m0/sae")
            with pytest.raises(cupola.NotFound, match="m0"):
                client.unregister("nobody")
            client.unregister("new/sae")
            client.unregister("new")
            assert names(client) == ["m0", "m0/sae"]
            with pytest.raises(cupola.NotFound):
                client.dictionary("new/sae")


def test_a_name_that_is_registered_again_gets_no_old_answers(
    tmp_path, catalog, root
):
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            client.register_dictionary("d", "m0", "m0-sae")
            first = features(client, "d")
            client.unregister("d")
            client.register_dictionary("d", "m0", "m1-sae")
            second = features(client, "d")
            assert not second.provenance.from_cache
            assert (first.csr != second.csr).nnz > 0
            # The first dictionary's answer is where it was.
            same = features(client, "m0/sae")
            assert same.provenance.from_cache
            assert (same.csr != first.csr).nnz == 0


def test_upload(tmp_path, catalog, root):
    cfg = json.loads((root / "m1-sae" / "cfg.json").read_text())
    tensors = load_file(root / "m1-sae" / "sae_weights.safetensors")
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            client.register_dictionary("there", "m0", "m1-sae")
            client.upload_dictionary("from/folder", "m0", root / "m1-sae")
            client.upload_dictionary("from/memory", "m0", (tensors, cfg))
            expected = features(client, "there")
            for name in ("from/folder", "from/memory"):
                got = features(client, name)
                assert (got.csr != expected.csr).nnz == 0
            client.unregister("from/folder")
            with pytest.raises(cupola.CupolaError, match="from/memory"):
                client.upload_dictionary("from/memory", "m0", (tensors, cfg))
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            assert "from/memory" in names(client)
            assert "from/folder" not in names(client)
            got = features(client, "from/memory")
            assert (got.csr != expected.csr).nnz == 0
    assert uploaded(tmp_path) == ["dictionary-from%memory"]


def uploaded(tmp_path):
    """What lies in the folder of uploads."""
    folder = tmp_path / "server/cache/state/cupola-uploads"
    return sorted(path.name for path in folder.iterdir() if path.name != "LOCK")


def requests(**fields):
    request = _protos.catalog.UploadDictionaryRequest
    header = dict(
        dictionary=_protos.catalog_config.DictionaryEntry(name="up", model="m0"),
        cfg=b"{}",
        bytes=4,
    )
    header.update(fields)
    return request, request(header=request.Header(**header))


def test_uploads_that_are_refused_leave_nothing_behind(tmp_path, catalog, root):
    with start(tmp_path, catalog, root, "--upload_bytes=2M") as server:
        def code(*messages):
            with grpc.insecure_channel(server.grpc) as channel:
                call = _protos.catalog_grpc.CatalogStub(channel).UploadDictionary
                with pytest.raises(grpc.RpcError) as error:
                    call(iter(messages), timeout=30)
                return error.value.code().name, error.value.details()

        request, header = requests()
        piece = request(piece=b"1234")
        bad = request(sha256=bytes(32))
        entry = _protos.catalog_config.DictionaryEntry
        for messages, expected, says in [
            ([piece], "INVALID_ARGUMENT", "header"),
            ([header, header], "INVALID_ARGUMENT", "once"),
            ([header], "INVALID_ARGUMENT", "sha256"),
            ([header, request()], "INVALID_ARGUMENT", "part"),
            ([header, piece, piece], "INVALID_ARGUMENT", "accepted"),
            ([header, bad], "INVALID_ARGUMENT", "4"),
            ([header, piece, bad], "INVALID_ARGUMENT", "send them again"),
            ([requests(bytes=0)[1]], "INVALID_ARGUMENT", "bytes"),
            ([requests(bytes=3 << 20)[1]], "RESOURCE_EXHAUSTED", str(2 << 20)),
            ([requests(cfg=b"no")[1]], "INVALID_ARGUMENT", "cfg"),
            (
                [requests(dictionary=entry(name="up", model="none"))[1]],
                "NOT_FOUND",
                "m0",
            ),
            (
                [requests(dictionary=entry(name="../up", model="m0", path="/"))[1]],
                "INVALID_ARGUMENT",
                "path",
            ),
            (
                [requests(dictionary=entry(name="m0/sae", model="m0"))[1]],
                "ALREADY_EXISTS",
                "m0/sae",
            ),
        ]:
            got, details = code(*messages)
            assert (got, says in details) == (expected, True), details
        # Right bytes that are no safetensors file.
        digest = hashlib.sha256(b"1234").digest()
        got, details = code(header, piece, request(sha256=digest))
        assert got == "INVALID_ARGUMENT" and "safetensors" in details
        deadline = time.monotonic() + 10
        while uploaded(tmp_path):
            assert time.monotonic() < deadline, uploaded(tmp_path)
            time.sleep(0.01)
        with cupola.connect(server.grpc) as client:
            assert names(client) == ["m0", "m0/sae"]
            # The quota is whole again.
            client.upload_dictionary("up", "m0", root / "m1-sae")


def reload(server, client, done):
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)


def test_sighup_reads_the_catalog_again(tmp_path, catalog, root):
    path = tmp_path / "server" / "catalog.textproto"
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            client.register_dictionary("mine", "m0", "m0-sae")
            first = features(client, "m0/sae")
            digest = client.describe("m0").digest
            seconds = client.describe("m0").load_seconds
            # Another dictionary of that name, a new model; m0 stays loaded.
            path.write_text(
                catalog_text(
                    {"m0": root / "m0", "m1": root / "m1"},
                    {"m0/sae": ("m0", root / "m1-sae")},
                )
            )
            reload(server, client, lambda: "m1" in names(client))
            assert names(client) == ["m0", "m1", "m0/sae", "mine"]
            assert client.describe("m0").load_seconds == seconds
            assert (features(client, "m0/sae").csr != first.csr).nnz > 0

            # Files that were replaced.
            shutil.copytree(root / "m1", root / "m0", dirs_exist_ok=True)
            reload(
                server,
                client,
                lambda: client.describe("m0").digest not in ("", digest),
            )
            assert client.describe("m0").digest == client.describe("m1").digest

            # What left.
            path.write_text(catalog)
            reload(server, client, lambda: "m1" not in names(client))
            assert names(client) == ["m0", "m0/sae", "mine"]


@pytest.mark.parametrize(
    "text, says",
    [
        ("model { nam", "catalog.textproto:1:"),
        ('model { name: "a" path: "/" }', "inside the model root"),
    ],
)
def test_a_broken_catalog_changes_nothing(tmp_path, catalog, root, text, says):
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            client.register_model("mine", "m1")
            path = tmp_path / "server" / "catalog.textproto"
            path.write_text(text.replace("ROOT", str(root)))
            reload(server, client, lambda: "not reloaded" in server.log())
            line = next(l for l in server.log().splitlines() if "not reloaded" in l)
            assert says in line
            assert names(client) == ["m0", "mine", "m0/sae"]
            assert features(client, "m0/sae").csr.nnz > 0


def test_what_contradicts_itself_fails_alone(tmp_path, catalog, root):
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            client.register_model("mine", "m1")
            client.load("mine")
            mine = client.describe("mine").digest
            (tmp_path / "server" / "catalog.textproto").write_text(
                catalog
                + 2 * f'model {{ name: "twice" path: "{root}/m1" }}\n'
                + f'dictionary {{ name: "d" model: "nobody" path: "{root}/x" }}\n'
                + f'model {{ name: "mine" path: "{root}/m0" }}\n'
            )
            reload(server, client, lambda: "twice" in names(client))
            for name, says in (("twice", "twice"), ("d", "nobody")):
                entry = client.describe(name)
                assert entry.state == "failed" and says in entry.failure
                with pytest.raises(cupola.FailedPrecondition, match=says):
                    client.load(name)
            # The file's, until it leaves again or the other is unregistered.
            client.load("mine")
            assert client.describe("mine").digest == client.describe("m0").digest
            assert features(client, "m0/sae").csr.nnz > 0
            (tmp_path / "server" / "catalog.textproto").write_text(catalog)
            reload(server, client, lambda: "twice" not in names(client))
            client.load("mine")
            assert client.describe("mine").digest == mine


def test_kept_entries_outside_of_the_root_fail_and_can_leave(
    tmp_path, catalog, root
):
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            client.register_model("new", "m1")
            client.register_dictionary("new/sae", "new", "m1-sae")
            client.upload_dictionary("up", "m0", root / "m1-sae")
    narrow = root / "narrow"
    shutil.copytree(root / "m0", narrow / "m0")
    shutil.copytree(root / "m0-sae", narrow / "m0-sae")
    text = catalog_text({"m0": narrow / "m0"}, {"m0/sae": ("m0", narrow / "m0-sae")})
    with start(tmp_path, text, narrow) as server:
        with cupola.connect(server.grpc) as client:
            assert names(client) == ["m0", "new", "m0/sae", "new/sae", "up"]
            for name in ("new", "new/sae"):
                entry = client.describe(name)
                assert entry.state == "failed" and "model root" in entry.failure
            assert features(client, "up").csr.nnz > 0
            client.unregister("new/sae")
            client.unregister("new")
            assert names(client) == ["m0", "m0/sae", "up"]


def test_what_a_killed_server_left_is_swept_and_nothing_else(
    tmp_path, catalog, root
):
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            client.upload_dictionary("up", "m0", root / "m1-sae")
        folder = tmp_path / "server/cache/state/cupola-uploads"
        shutil.copytree(folder / "dictionary-up", folder / "dictionary-lost")
        (folder / "part-abc").mkdir()
        (folder / "notes").mkdir()
        server.kill()
    with start(tmp_path, catalog, root) as server:
        assert uploaded(tmp_path) == ["dictionary-up", "notes"]
        with cupola.connect(server.grpc) as client:
            assert features(client, "up").csr.nnz > 0
        # Another server with the same folder leaves it alone.
        with Server(
            tmp_path / "other",
            catalog,
            f"--upload_dir={tmp_path / 'server/cache/state'}",
            "--no-self_check",
        ) as other:
            with cupola.connect(other.grpc) as client:
                with pytest.raises(cupola.FailedPrecondition, match="another"):
                    client.upload_dictionary("up2", "m0", root / "m1-sae")
        assert uploaded(tmp_path) == ["dictionary-up", "notes"]


def idle_upload(channel):
    """A call that has begun to send a dictionary and sends no more."""
    _, header = requests(bytes=1 << 20)
    told = threading.Event()

    def messages():
        yield header
        told.wait(60)

    stub = _protos.catalog_grpc.CatalogStub(channel)
    return stub.UploadDictionary.future(messages(), timeout=60), told


def test_an_upload_that_sends_nothing_ends(tmp_path, catalog, root):
    with start(
        tmp_path, catalog, root, "--upload_bytes=2M", "--upload_idle_seconds=1"
    ) as server:
        with grpc.insecure_channel(server.grpc) as channel:
            call, told = idle_upload(channel)
            assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED, call.details()
            assert "nothing has come" in call.details()
            told.set()
        with cupola.connect(server.grpc) as client:  # its quota is free again
            client.upload_dictionary("up", "m0", root / "m1-sae")


def test_a_drain_does_not_wait_for_an_idle_upload(tmp_path, catalog, root):
    with start(tmp_path, catalog, root, "--drain_seconds=60") as server:
        with grpc.insecure_channel(server.grpc) as channel:
            call, told = idle_upload(channel)
            while not uploaded(tmp_path):
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            # A reload that comes too late ends nothing.
            server.process.send_signal(signal.SIGHUP)
            assert call.code() is grpc.StatusCode.UNAVAILABLE, call.details()
            assert server.process.wait(30) == 0
            told.set()
        assert uploaded(tmp_path) == []


def test_files_that_changed_are_not_served_as_what_they_were(
    tmp_path, catalog, root
):
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            first = features(client, "m0/sae")
            client.unload("m0")
            weights = "sae_weights.safetensors"
            # In place, as cp and rsync --inplace do.
            (root / "m0-sae" / weights).write_bytes(
                (root / "m1-sae" / weights).read_bytes()
            )
            assert features(client, "m0/sae").provenance.from_cache
            with pytest.raises(cupola.FailedPrecondition, match="changed"):
                client.dictionary("m0/sae").features([*PROMPT, 7])
            digest = client.describe("m0/sae").digest
            reload(
                server,
                client,
                lambda: client.describe("m0/sae").digest not in ("", digest),
            )
            assert (features(client, "m0/sae").csr != first.csr).nnz > 0


def test_a_job_on_registered_entries_goes_on_after_a_kill(tmp_path, root):
    make_dictionaries.make_pair(
        root / "pair", d_in=128, d_sae=90, k=10, hook_name=PAIR_HOOK, seed=3
    )
    prompts = [[3 + (7 * i + k) % 90 for k in range(9)] for i in range(200)]
    flags = ("--job_checkpoint_seconds=0",)
    server = start(tmp_path, "", root, *flags)
    with cupola.connect(server.grpc) as client:
        client.register_model("new", "m1")
        client.register_dictionary("pair", "new", "pair")
        job = client.pair("pair").accumulate(prompts, chunk_tokens=8)
        for info in job.watch():
            if info.chunks_saved >= 2:
                break
        server.kill()
    assert not info.ended, "too short to be interrupted"
    with start(tmp_path, "", root, *flags) as server:
        with cupola.connect(server.grpc) as client:
            assert client.job(job.id).wait().tokens_done == 9 * 200


def test_a_missing_folder_fails_alone(tmp_path, catalog, root):
    with start(tmp_path, catalog, root) as server:
        with cupola.connect(server.grpc) as client:
            text = catalog + f'model {{ name: "gone" path: "{root}/gone" }}\n'
            (tmp_path / "server" / "catalog.textproto").write_text(text)
            reload(
                server,
                client,
                lambda: "gone" in names(client)
                and client.describe("gone").state == "failed",
            )
            assert "gone" in client.describe("gone").failure
            # A second try after it has come.
            shutil.copytree(root / "m1", root / "gone")
            assert client.load("gone").state == "resident"
            assert np.isfinite(features(client, "m0/sae").csr.data).all()
