"""Datasets from end to end: what is sent comes back, rows are what the
tokenizer makes of it, and nothing is left of what did not come to its end."""

import gzip
import json
import pathlib

import cupola
import grpc
import numpy as np
import pytest
from cupola import _protos
from harness.server import Server, catalog_text
from harness.zoo import make_models
from transformers import AutoTokenizer

D = _protos.datasets
ROW = 8  # bytes of the quota that each row takes beside its own
TEXTS = ["The sky is blue.", "A cat", "x", "Zwölf Boxkämpfer jagen Viktor quer."]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return {
        "tiny": make_models.make("gpt_neox", folder / "tiny"),
        "llama": make_models.make("llama", folder / "llama"),
    }


@pytest.fixture(scope="module")
def server(folders, tmp_path_factory):
    with Server(
        tmp_path_factory.mktemp("datasets"),
        catalog_text(folders, {}),
        "--dataset_bytes=4M",
    ) as server:
        server.wait_until_loaded()
        yield server


@pytest.fixture(scope="module")
def client(server):
    with cupola.connect(server.grpc) as client:
        yield client


@pytest.fixture
def texts(client):
    dataset = client.dataset("texts", TEXTS)
    yield dataset
    dataset.delete()


def encode(folders, model, text):
    tokenizer = AutoTokenizer.from_pretrained(folders[model])
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_what_is_sent_comes_back(client, texts):
    assert (texts.info.kind, texts.info.rows) == ("texts", len(TEXTS))
    assert texts.info.bytes == sum(len(text.encode()) for text in TEXTS)
    assert texts.info.expires is None
    assert texts.documents() == TEXTS
    assert texts.documents(1, 2) == TEXTS[1:3]
    assert [dataset.info for dataset in client.datasets()] == [texts.info]
    ids = [[3, 4, 5], [6], [7, 8]]
    tokens = client.dataset("ids", (np.array(row) for row in ids))
    assert (tokens.info.kind, tokens.documents()) == ("tokens", ids)
    tokens.delete()
    with pytest.raises(cupola.NotFound, match='no dataset "ids"; there are: texts'):
        client.dataset("ids")
    with pytest.raises(cupola.InvalidArgument, match="first from 0 to 3"):
        texts.documents(4)


def test_files(client, tmp_path):
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(json.dumps({"text": "three", "id": 1}) + "\n\n")
        file.write(json.dumps("four") + "\n")
    table = pyarrow.table({"id": [1, 2], "text": ["five", "six"]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    pyarrow.feather.write_feather(table, str(tmp_path / "d.arrow"), "uncompressed")
    with pyarrow.OSFile(str(tmp_path / "e.arrow"), "wb") as file:
        with pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    files = [tmp_path / name for name in ("a.txt", "b.jsonl.gz", "c.parquet", "d.arrow", "e.arrow")]
    dataset = client.dataset("files", files)
    assert dataset.documents(0, 99) == "one two three four five six five six five six".split()
    dataset.delete()
    whole = client.dataset("whole", tmp_path / "a.txt", format="text")
    assert whole.documents() == ["one\n\ntwo\n"]
    whole.delete()
    ids = pyarrow.table({"input_ids": [[3, 4], [5]]})
    pyarrow.parquet.write_table(ids, tmp_path / "ids.parquet")
    tokens = client.dataset("ids", str(tmp_path / "ids.parquet"))
    assert tokens.documents() == [[3, 4], [5]]
    tokens.delete()
    with pytest.raises(cupola.InvalidArgument, match="no 'body'; there are: id, text"):
        client.dataset("files", files[2], column="body")
    with pytest.raises(cupola.InvalidArgument, match="cannot be told from its name"):
        client.dataset("files", tmp_path / "x.bin")
    (tmp_path / "f.jsonl").write_text('{"text": "a"}\n{"text"\n')
    with pytest.raises(cupola.InvalidArgument, match="f.jsonl:2: this is no JSON"):
        client.dataset("files", tmp_path / "f.jsonl")
    assert client.datasets() == []


def test_a_row_each(folders, texts, client):
    for model in folders:
        bos = client.model(model).tokenize("x", prepend_bos=True)[0][0]
        rows = [encode(folders, model, text) for text in TEXTS]
        plain = texts.tokenize(model, bos="none")
        how = plain.tokenization
        assert (plain.rows, plain.tokens) == (len(rows), sum(map(len, rows)))
        assert plain.longest == max(map(len, rows))
        assert texts.tokens(how) == rows
        begun = texts.tokenize(model, bos="row", row_tokens=6, too_long="cut")
        assert texts.tokens(begun.tokenization) == [[bos, *row][:6] for row in rows]
        assert begun.cut == sum(len(row) > 5 for row in rows)
        # As usual for the model.
        usual = texts.tokenize(model)
        assert texts.tokens(usual.tokenization, 0, 1) == [
            client.model(model).tokenize(TEXTS[0])[0]
        ]
        assert texts.tokenize(model, bos="none") == plain
    with pytest.raises(
        cupola.InvalidArgument, match=r"document 0 has \d+ tokens with BOS; a row takes 3"
    ):
        texts.tokenize("tiny", bos="row", row_tokens=3)
    assert {made.digest for made in texts.refresh().tokenized} >= {plain.digest}


@pytest.mark.parametrize("bos", ["none", "row", "document"])
@pytest.mark.parametrize("separator", ["none", "eos", "bos"])
def test_packed(folders, texts, client, bos, separator):
    model = "llama"
    begin = client.model(model).tokenize("x", prepend_bos=True)[0][0]
    eos = json.loads((pathlib.Path(folders[model]) / "config.json").read_text())[
        "eos_token_id"
    ]
    between = {"none": [], "eos": [eos], "bos": [begin]}[separator]
    stream = []
    for i, text in enumerate(TEXTS):
        stream += between if i else []
        stream += [begin] if bos == "document" else []
        stream += encode(folders, model, text)
    step = 7 - (bos == "row")
    rows = [stream[at : at + step] for at in range(0, len(stream), step)]
    rows = [[begin, *row] for row in rows] if bos == "row" else rows
    made = texts.tokenize(model, packed=True, row_tokens=7, bos=bos, separator=separator)
    assert texts.tokens(made.tokenization, 0, 99) == rows
    assert (made.rows, made.longest, made.cut) == (len(rows), 7, 0)
    assert texts.tokens(made.tokenization, 2, 2) == rows[2:4]


def test_refusals(client, texts):
    for wanted, said in [
        (dict(packed=True), "separator is not set; accepted with layout PACKED"),
        (dict(separator="eos"), "each document has a row of its own"),
        (dict(packed=True, separator="none", too_long="cut"), "too_long is set"),
        (dict(row_tokens=10**6), "row_tokens is 1000000; accepted: 1 to"),
        (dict(packed=True, separator="none", bos="row", row_tokens=1), "2 or more"),
        (dict(bos="both"), "bos: expected one of"),
    ]:
        with pytest.raises(cupola.InvalidArgument, match=said):
            texts.tokenize("tiny", **wanted)
    with pytest.raises(cupola.NotFound):
        texts.tokenize("nobody")
    with pytest.raises(cupola.AlreadyExists, match='there is a dataset "texts"'):
        client.dataset("texts", ["again"])
    with pytest.raises(cupola.InvalidArgument, match="no documents"):
        client.dataset("none", [])
    with pytest.raises(cupola.InvalidArgument, match="document 1 is empty"):
        client.dataset("none", ["a", ""])
    with pytest.raises(cupola.InvalidArgument, match="both texts and tokens"):
        client.dataset("none", ["a", [3]])
    with pytest.raises(cupola.InvalidArgument, match="lone surrogates"):
        client.dataset("none", ["a", "\ud800"])
    with pytest.raises(cupola.InvalidArgument, match="name"):
        client.dataset("a\nb", ["a"])
    skipped = client.dataset("skipped", ["a", "", "b"], skip_empty=True)
    assert skipped.documents() == ["a", "b"]
    skipped.delete()
    high = client.dataset("high", [[3], [4, 10**6]])
    with pytest.raises(
        cupola.InvalidArgument, match="document 1: token id 1000000 at position 1"
    ):
        high.tokenize("tiny")
    high.delete()
    assert [dataset.name for dataset in client.datasets()] == ["texts"]


def used_bytes(client):
    connection = client._connection
    return connection.unary(connection.datasets.List, D.ListDatasetsRequest()).bytes


def test_an_upload_that_does_not_end_leaves_nothing(server, client):
    def send(*messages):
        with grpc.insecure_channel(server.grpc) as channel:
            stub = _protos.datasets_grpc.DatasetsStub(channel)
            return stub.Upload(iter(messages))

    header = D.UploadDatasetRequest(header=D.UploadDatasetRequest.Header(name="half"))
    rows = D.UploadDatasetRequest(rows=D.UploadDatasetRequest.Rows(texts=["a" * 3000]))
    wrong = D.UploadDatasetRequest(sha256=bytes(32))
    for messages, code in [
        ([header, rows], grpc.StatusCode.INVALID_ARGUMENT),
        ([rows], grpc.StatusCode.INVALID_ARGUMENT),
        ([header, header], grpc.StatusCode.INVALID_ARGUMENT),
        ([header, D.UploadDatasetRequest()], grpc.StatusCode.INVALID_ARGUMENT),
        ([header, rows, wrong], grpc.StatusCode.DATA_LOSS),
        ([header, rows, D.UploadDatasetRequest(sha256=b"x")], grpc.StatusCode.INVALID_ARGUMENT),
        ([], grpc.StatusCode.INVALID_ARGUMENT),
    ]:
        with pytest.raises(grpc.RpcError) as refused:
            send(*messages)
        assert refused.value.code() == code, messages
    assert client.datasets() == []
    assert used_bytes(client) == 0


def test_quota(client):
    with pytest.raises(cupola.ResourceExhausted, match="accepted: 4194304"):
        client.dataset("large", ["a" * 1_000_000] * 5)
    assert used_bytes(client) == 0
    one = client.dataset("one", ["ab" * 1_000_000])
    # The same documents once more take no room, and stay when one name goes.
    two = client.dataset("two", ["ab" * 1_000_000])
    assert two.info.sha256 == one.info.sha256
    assert used_bytes(client) == 2_000_000 + ROW
    one.delete()
    assert two.documents(0, 1) == ["ab" * 1_000_000]
    two.delete()
    assert used_bytes(client) == 0


def test_survives_kill_9(folders, tmp_path):
    catalog = catalog_text({"tiny": folders["tiny"]}, {})
    server = Server(tmp_path, catalog)
    with cupola.connect(server.grpc) as client:
        kept = client.dataset("kept", TEXTS)
        made = kept.tokenize("tiny", bos="none")

        def endless():
            yield "a" * 2_000_000
            server.kill()
            yield from ["a"] * 10

        with pytest.raises(cupola.Unavailable):
            client.dataset("half", endless())
    with Server(tmp_path, catalog) as again:
        with cupola.connect(again.grpc) as client:
            (found,) = client.datasets()
            assert found.info.sha256 == kept.info.sha256
            assert found.info.tokenized == (made,)
            assert found.documents() == TEXTS
            rows = found.info.rows + made.rows
            assert used_bytes(client) == found.info.bytes + 4 * made.tokens + ROW * rows


def test_expiry(folders, tmp_path):
    import datetime

    with Server(tmp_path, catalog_text({"tiny": folders["tiny"]}, {})) as server:
        with cupola.connect(server.grpc) as client:
            soon = client.dataset("soon", ["a"], keep=datetime.timedelta(seconds=1))
            assert soon.info.expires > soon.info.created
            late = client.dataset("late", ["b"], keep=datetime.timedelta(hours=1))
            while len(client.datasets()) == 2:
                pass
            assert [one.name for one in client.datasets()] == ["late"]
            assert used_bytes(client) == late.info.bytes + ROW
