"""Activations, features and reconstructions, against the fake server."""

import math

import numpy as np
import pytest
import scipy.sparse

import cupola
from fake_server import DICTIONARIES, activations, latents


@pytest.fixture(params=[None, 5, 1 << 20], ids=["whole", "5 bytes", "1 MiB"])
def chunked(request, server):
    """Answers in one message, in many chunks, and in one chunk."""
    server.chunk_bytes = request.param


@pytest.fixture
def model(client):
    return client.model("tiny")


@pytest.fixture
def sae(client):
    return client.dictionary("tiny/sae")


def test_tokenize(model, server):
    assert model.tokenize("The sky") == [[0, 1, 2]]
    assert not server.last("Tokenize")[0].prompts.HasField("prepend_bos")
    assert model.tokenize(["The", ""], prepend_bos=False) == [[1], []]
    assert model.str_tokens("The sky") == [["<bos>", "The", " sky"]]
    assert model.str_tokens([[5, 1]]) == [["\ufffd", "The"]]


def test_single_token(model):
    assert model.single_token(" sky") == 2
    with pytest.raises(cupola.InvalidArgument, match="2 tokens.*' sky'"):
        model.single_token("The sky")
    with pytest.raises(cupola.InvalidArgument, match="0 tokens"):
        model.single_token("")
    with pytest.raises(cupola.InvalidArgument, match="list"):
        model.single_token(["The"])


def test_activations(chunked, model, server):
    acts = model.activations(["The sky", [3, 4]], ["embed0", "b"])
    assert list(acts) == acts.hooks == ["hook_embed", "b"]
    assert acts.token_ids == [[0, 1, 2], [3, 4]]
    assert len(acts) == 2 and "embed0" in acts
    for number, hook in enumerate(["hook_embed", "b"]):
        for array, ids in zip(acts[hook], acts.token_ids):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, activations(ids, number))
    np.testing.assert_array_equal(acts["embed0"][1], acts["hook_embed"][1])
    assert [p.tolist() for p in acts.positions] == [[0, 1, 2], [0, 1]]
    with pytest.raises(KeyError):
        acts["other"]
    assert "hook_embed: float32 [3, 4], [2, 4]" in repr(acts)
    assert "2 prompts" in repr(acts)
    assert server.last("GetActivations")[0].processing  # raw, spelled out


def test_activations_at_positions(chunked, model):
    acts = model.activations("The sky", "b", positions=[-1, 0])
    np.testing.assert_array_equal(acts["b"][0], activations([2, 0], 0))
    assert acts.positions[0].tolist() == [2, 0]
    acts = model.activations(["The", "The sky"], "b", positions=[[], [1]])
    assert [array.shape for array in acts["b"]] == [(0, 4), (1, 4)]


@pytest.mark.parametrize(
    "dtype, arrives", [("bfloat16", np.float32), ("float16", np.float16)]
)
def test_activations_in_half_the_bytes(chunked, model, dtype, arrives):
    (array,) = model.activations("The sky", "b", dtype=dtype)["b"]
    assert array.dtype == arrives
    np.testing.assert_array_equal(array, activations([0, 1, 2], 0))


def test_processing_is_sent(client, server):
    folded = client.model("tiny", processing="folded")
    acts = folded.activations("The", "b")
    assert acts.provenance.processing == "folded"
    client.dictionary("tiny/sae", processing="folded").features("The")
    assert server.last("GetFeatures")[0].processing == 2
    client.dictionary("tiny/sae").features("The")
    assert server.last("GetFeatures")[0].processing == 0


def test_features(chunked, sae):
    features = sae.features(["The sky", "The sky blue"])
    assert features.csr.shape == (7, 50) and len(features) == 7
    assert scipy.sparse.issparse(features.csr)
    assert features.csr.dtype == np.float32
    assert features.prompt.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert features.position.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert features.token_ids.tolist() == [0, 1, 2, 0, 1, 2, 4]
    assert features.prompt_token_ids == [[0, 1, 2], [0, 1, 2, 4]]
    dense = np.zeros((7, 50), np.float32)
    for row, index in enumerate(features.token_ids):
        for latent, value in latents(index):
            dense[row, latent] = value
    np.testing.assert_array_equal(features.csr.toarray(), dense)
    assert features.tokens[:3] == ["<bos>", "The", " sky"]


def test_one_latent(sae, server):
    sae.features("The", latents=5)
    assert list(server.last("GetFeatures")[0].latents) == [5]


def test_sizes_that_are_not_known_yet(client, server):
    entry = DICTIONARIES[0]
    sae = client.dictionary("tiny/sae")
    sae.info = cupola.DictionaryInfo.from_message(
        type(entry)(name=entry.name, model=entry.model)
    )
    assert len(sae.encode([[1, 2, 3, 4]])) == 1
    assert server.last("Load")[0].name == "tiny/sae"
    assert sae.info.d_in == 4


def test_features_request(sae, server):
    sae.features(
        "The sky",
        positions=-1,
        latents=np.array([3, 4]),
        top_k=2,
        min_activation=0.5,
        prepend_bos=True,
    )
    request, _ = server.last("GetFeatures")
    assert list(request.latents) == [3, 4]
    assert (request.top_k, request.min_activation) == (2, 0.5)
    assert list(request.positions.every_prompt.values) == [-1]
    assert request.prompts.prepend_bos
    sae.features("The sky")
    request, _ = server.last("GetFeatures")
    assert not request.HasField("positions") and not request.latents
    assert (request.top_k, request.min_activation) == (0, 0)


@pytest.mark.parametrize(
    "arguments, part",
    [
        ({"latents": []}, "latents"),
        ({"latents": [-1]}, "-1"),
        ({"latents": [1.5]}, "1.5"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": -3}, "-3"),
        ({"inputs": np.zeros((1, 4))}, "either"),
        ({"prompts": None}, "either"),
        ({"prompts": None, "inputs": np.zeros((1, 3))}, r"\[n, 4\]"),
        ({"prompts": None, "inputs": [[0] * 4], "positions": 0}, "positions"),
    ],
)
def test_bad_features_requests(sae, server, arguments, part):
    with pytest.raises(cupola.InvalidArgument, match=part):
        sae.features(**{"prompts": "The", **arguments})
    assert not any(entry[0] == "GetFeatures" for entry in server.requests)


def test_cache_and_times_are_told(sae):
    first, second = sae.features("The sky"), sae.features("The sky")
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.seconds == first.seconds.total == 0.5
    assert first.seconds.compute == 0.25
    assert first.seconds.round_trip > 0
    assert first.provenance.dictionary == "tiny/sae"
    assert first.provenance.dictionary_digest == "02" * 32
    assert "computed" in repr(first) and "from the cache" in repr(second)


def test_to_dataframe(sae):
    frame = sae.features("The sky", positions=[2, 0]).to_dataframe()
    assert list(frame.columns) == [
        "prompt",
        "position",
        "token_id",
        "token",
        "latent",
        "activation",
    ]
    assert frame.latent.tolist() == [2, 20, 32, 7, 40]
    assert frame.token.tolist() == [" sky"] * 3 + ["<bos>"] * 2
    assert frame.position.tolist() == [2, 2, 2, 0, 0]
    assert frame.activation.tolist() == [3, 2, 0.5, 900, 300]


def test_top(sae):
    features = sae.features(["The sky", "The sky is"])
    top = features.top(4)
    # Latents 2 and 20 are strongest; 1 and 20 tie at 2: lower index first.
    assert top.latent.tolist() == [7, 40, 3, 2]
    assert top.max_activation.tolist() == [900, 300, 4, 3]
    assert top.active_tokens.tolist() == [2, 2, 1, 2]
    assert top.token.tolist() == ["<bos>", "<bos>", " is", " sky"]
    assert top.prompt.tolist() == [0, 0, 1, 0]
    assert features.top(100).latent.tolist()[4:6] == [1, 20]
    assert features.top_per_token(2)[1] == [(1, 2.0), (20, 2.0)]


def test_nothing_active(sae):
    features = sae.features("The sky", positions=[])
    assert features.csr.shape == (0, 50)
    assert len(features.top()) == 0 and len(features.to_dataframe()) == 0
    assert features.top_per_token() == []
    assert "0 tokens" in features._repr_html_()


def test_token_texts_are_asked_for_once(sae, server):
    features = sae.features("The sky")
    assert not any(entry[0] == "Tokenize" for entry in server.requests)
    features.tokens, features.to_dataframe(), sae.features("The").tokens
    assert sum(entry[0] == "Tokenize" for entry in server.requests) == 1
    assert sae.features("The is").tokens[2] == " is"
    assert sum(entry[0] == "Tokenize" for entry in server.requests) == 2


def test_encode(chunked, sae, server):
    inputs = np.arange(8, dtype=np.float64).reshape(2, 4)
    features = sae.encode(inputs)
    sent = server.last("GetFeatures")[0].inputs
    np.testing.assert_array_equal(
        np.frombuffer(sent.data, "<f4").reshape(sent.shape), inputs
    )
    assert features.position.tolist() == [0, 1]
    assert features.token_ids.tolist() == [] and features.tokens == []
    assert list(features.to_dataframe().columns) == [
        "prompt",
        "position",
        "latent",
        "activation",
    ]
    assert "token" not in features.top().columns
    same = sae.features(inputs=inputs)
    np.testing.assert_array_equal(same.csr.toarray(), features.csr.toarray())


def test_encode_takes_activations(sae, model, server):
    acts = model.activations(["The", "The sky"], "b")
    assert len(sae.encode(acts["b"])) == 5
    with pytest.raises(cupola.InvalidArgument, match="inputs"):
        sae.encode(acts["b"][0][:, :3])


def test_decode(chunked, sae, server):
    dense = np.zeros((2, 50))
    dense[0, [9, 3]] = [1, 2]
    unsorted = scipy.sparse.csr_matrix(
        ([1.0, 2.0], [9, 3], [0, 2, 2]), shape=(2, 50)
    )
    for given in (dense, unsorted, scipy.sparse.coo_matrix(dense)):
        output = sae.decode(given)
        assert output.dtype == np.float32
        np.testing.assert_array_equal(output, np.arange(8).reshape(2, 4))
        sent = server.last("Reconstruct")[0].features
        assert sent.columns == 50
        assert np.frombuffer(sent.indptr.data, "<i8").tolist() == [0, 2, 2]
        assert np.frombuffer(sent.indices.data, "<u4").tolist() == [3, 9]
        assert np.frombuffer(sent.values.data, "<f4").tolist() == [2, 1]
    assert unsorted.indices.tolist() == [9, 3]  # the caller's stays as it is
    features = sae.features("The sky")
    assert sae.decode(features).shape == (3, 4)
    assert len(sae.encode(features)) == 3  # decoded on the way


def test_bad_features_to_decode(sae):
    for wrong in (np.zeros((2, 49)), "text", [[1], [1, 2]]):
        with pytest.raises(cupola.InvalidArgument, match="features"):
            sae.decode(wrong)


def test_reconstruct(chunked, sae):
    answer = sae.reconstruct(["The", "The sky"], positions=-1)
    rows = np.arange(8).reshape(2, 4)
    np.testing.assert_array_equal(answer.reconstruction, rows)
    np.testing.assert_array_equal(answer.target, rows + 1)
    assert answer.squared_error.tolist() == [4, 4]
    assert answer.token_l0.tolist() == [3, 3]
    assert (answer.fvu, answer.l0) == (0.25, 3.0)
    assert answer.prompt.tolist() == [0, 1]
    assert answer.position.tolist() == [1, 2]
    assert answer.token_ids.tolist() == [1, 2]
    assert "FVU 0.25, L0 3" in repr(answer) and len(answer) == 2


def test_reconstruct_inputs(chunked, sae):
    answer = sae.reconstruct(inputs=np.zeros((3, 4)))
    assert answer.reconstruction.shape == (3, 4)
    assert answer.target is None and answer.squared_error is None
    assert math.isnan(answer.fvu)
    assert answer.position.tolist() == [0, 1, 2]
    with pytest.raises(cupola.InvalidArgument, match="either"):
        sae.reconstruct()


@pytest.mark.parametrize("fault", ["short", "long"])
def test_a_stream_of_the_wrong_length(model, sae, server, fault):
    server.chunk_bytes = 8
    server.drop_last_chunk = fault == "short"
    server.extra_chunk = b"x" if fault == "long" else b""
    for call in (
        lambda: model.activations("The sky", "b"),
        lambda: sae.features("The sky"),
        lambda: sae.reconstruct("The sky"),
    ):
        with pytest.raises(cupola.DataLoss, match="bytes of chunks"):
            call()
