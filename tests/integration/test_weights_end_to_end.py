"""Weights through gRPC against TransformerLens' parameters and SAELens' tensors."""

import cupola
import numpy as np
import pytest
import torch
from harness.lens import FAMILIES, PROCESSINGS, hooked
from harness.server import Server, catalog_text
from harness.zoo import D_MODEL, make_dictionaries
from safetensors.torch import save_file

TOLERANCE = 5e-5

both_processings = pytest.mark.parametrize("processing", PROCESSINGS)


def close(actual, expected):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    scale = max(np.abs(expected).max(), 1e-30)
    assert np.abs(actual - expected).max() <= TOLERANCE * scale


@both_processings
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_transformer_lens(client, family, processing):
    model = client.model(family, processing)
    compared = 0
    for name, value in hooked(family, processing).state_dict().items():
        if ".mask" in name or "IGNORE" in name or "rotary" in name:
            continue
        close(model.weight(name), value)
        compared += 1
    assert compared > 20
    # Under grouped heads, the properties that repeat them.
    attention = hooked(family, processing).blocks[1].attn
    for name in ("W_K", "W_V", "b_K", "b_V"):
        close(model.weight(f"blocks.1.attn.{name}"), getattr(attention, name))


def test_rows_columns_and_short_names(client):
    model = client.model("gpt2")
    whole = model.weight("blocks.1.mlp.W_in")
    some = model.weight("blocks.1.mlp.W_in", rows=[3, 0, 3], columns=range(2, 5))
    np.testing.assert_array_equal(some, whole[[3, 0, 3]][:, 2:5])
    np.testing.assert_array_equal(model.weight("W_U", columns=7), model.weight("unembed.W_U")[:, 7])
    heads = model.weight("blocks.0.attn.W_O")
    np.testing.assert_array_equal(model.weight("blocks.0.attn.W_O", rows=2, columns=[1]), heads[2][:, [1]])


def saes(zoo):
    """One dictionary of each architecture."""
    found = {}
    for name, (_, folder) in zoo.dictionaries.items():
        found.setdefault(name.rpartition("/")[2], (name, folder))
    return found


def test_every_tensor_of_saelens(zoo, client):
    assert set(saes(zoo)) == set(make_dictionaries.ARCHITECTURES)
    for architecture, (name, folder) in saes(zoo).items():
        sae = client.dictionary(name)
        expected = make_dictionaries.load(folder)
        if architecture == "topk" and expected.cfg.rescale_acts_by_decoder_norm:
            expected.fold_W_dec_norm()
        for tensor, value in expected.state_dict().items():
            close(sae.weight(tensor), value)
        rows = sae.weight("W_dec", rows=[5, 1])
        close(rows, expected.W_dec.detach()[[5, 1]])


def test_nearest_latents_and_gram(zoo, client):
    name, folder = saes(zoo)["standard"]
    weights = client.dictionary(name).weights
    expected = make_dictionaries.load(folder)
    for side, rows in (("decoder", expected.W_dec), ("encoder", expected.W_enc.T)):
        unit = torch.nn.functional.normalize(rows.double(), dim=-1)
        cosines = unit @ unit.T
        gram = weights.gram([4, 9, 2], side)
        close(gram, cosines[[4, 9, 2]][:, [4, 9, 2]])
        product = weights.gram([4, 9], side, normalize=False)
        close(product, (rows @ rows.T)[[4, 9]][:, [4, 9]])
        cut = weights.gram([4, 9, 2], side, threshold=0.5)
        assert (cut == np.where(np.abs(gram) < 0.5, 0, gram)).all()
        cosines.fill_diagonal_(-2)
        values, indices = cosines[[4, 9]].topk(6)
        near = weights.nearest([4, 9], top_k=6, side=side)
        assert near["latent"].tolist() == [4] * 6 + [9] * 6
        assert near["neighbour"].tolist() == indices.reshape(-1).tolist()
        close(near["cosine"].to_numpy(), values.reshape(-1))
        by_vector = weights.nearest(
            vectors=3 * rows[[4]].numpy(), top_k=7, side=side
        )
        assert by_vector["neighbour"][0] == 4
        assert by_vector["neighbour"].tolist()[1:] == indices[0].tolist()


def residual_rows(zoo, client, family, processing):
    """(dictionary, decoder rows, TransformerLens' model)."""
    name = next(n for n in zoo.dictionaries if n.startswith(f"{family}/"))
    sae = client.dictionary(name, processing)
    return sae, torch.from_numpy(sae.weight("W_dec")), hooked(family, processing)


def seen(lens, rows):
    """What the final norm leaves of directions, but for its scale."""
    if lens.cfg.normalization_type.startswith("LN"):
        rows = rows - rows.mean(-1, keepdim=True)
    return rows


@both_processings
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "llama3", "gemma2"])
def test_latents_through_the_unembedding(zoo, client, family, processing):
    sae, rows, lens = residual_rows(zoo, client, family, processing)
    for gain in (True, False):
        directions = seen(lens, rows)
        if gain and processing == "raw":
            directions = directions * lens.ln_final.w
        logits = directions @ lens.W_U
        effects = sae.weights.logits([11, 3], gain=gain)
        close(effects, logits.T[[11, 3]])
        difference = sae.weights.logits([11, 3], [2, 7], gain=gain)
        close(difference, (logits[:, [11, 3]] - logits[:, [2, 7]]).T)
        table = sae.weights.tokens([8, 0], top=3, bottom=2, gain=gain)
        order = logits[[8, 0]].argsort(-1, descending=True)
        wanted = torch.cat([order[:, :3], order[:, -2:]], -1)
        assert table["token_id"].tolist() == wanted.reshape(-1).tolist()
        close(
            table["effect"].to_numpy(),
            logits[[8, 0]].gather(-1, wanted).reshape(-1),
        )
        assert table["token"].map(type).eq(str).all()


@both_processings
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_logit_weights(zoo, client, family, processing):
    sae, rows, lens = residual_rows(zoo, client, family, processing)
    directions = seen(lens, rows)
    if processing == "raw":
        directions = directions * lens.ln_final.w
    logits = (directions @ lens.W_U).numpy()
    asked = [8, 0, 199, 8]
    mine = sae.logit_weights(asked, top=4, bottom=2, bins=7)
    assert (len(mine), mine.tokens.shape, mine.histogram.shape) == (4, (4, 6), (4, 7))
    order = np.argsort(-logits[asked], axis=1)
    wanted = np.concatenate([order[:, :4], order[:, :-3:-1]], axis=1)
    np.testing.assert_array_equal(mine.tokens, wanted)
    close(mine.values, np.take_along_axis(logits[asked], wanted, 1))
    close(mine.ends, np.stack([logits[asked].min(1), logits[asked].max(1)], 1))
    slack = TOLERANCE * np.abs(logits[asked]).max()
    for row, edges, counts in zip(logits[asked], mine.edges(), mine.histogram):
        assert counts.sum() == len(row)
        expected, _ = np.histogram(row, bins=7)
        near = (np.abs(row[:, None] - edges[None, 1:-1]) < slack).sum()
        assert np.abs(counts - expected).sum() <= 2 * near
    table = mine.to_dataframe()
    assert table["rank"].tolist()[:6] == [0, 1, 2, 3, -1, -2]
    assert table["token_id"].tolist() == wanted.reshape(-1).tolist()
    assert table["token"].map(type).eq(str).all()
    again = sae.logit_weights(asked, top=4, bottom=2, bins=7)
    assert again.provenance.from_cache
    np.testing.assert_array_equal(again.values, mine.values)
    everyone = sae.logit_weights(top=1)
    assert len(everyone) == len(rows) and everyone.tokens.shape == (len(rows), 2)
    np.testing.assert_array_equal(everyone.tokens[:, 0], logits.argmax(1))
    close(sae.logit_weights(0, top=1).values, everyone.values[:1])


@pytest.fixture(scope="module")
def placed(zoo, tmp_path_factory):
    """A server with dictionaries on the points of gpt2's layer 1."""
    folder = tmp_path_factory.mktemp("placed")
    points = {
        "post": ("blocks.1.mlp.hook_post", 128),
        "z": ("blocks.1.attn.hook_z", D_MODEL),
        "normalized": ("blocks.1.ln2.hook_normalized", D_MODEL),
    }
    entries = {}
    for name, (hook, width) in points.items():
        path = make_dictionaries.make(
            "standard", folder / name, d_in=width, hook_name=hook
        )
        entries[name] = ("gpt2", path)
    density = torch.linspace(-5, -1, 203)
    save_file({"sparsity": density}, folder / "post" / "sparsity.safetensors")
    catalog = catalog_text({"gpt2": zoo.models["gpt2"]}, entries)
    with Server(folder / "server", catalog) as server:
        with cupola.connect(server.grpc) as client:
            yield client, 10**density


@both_processings
def test_latents_through_w_out_and_w_o(placed, processing):
    client, _ = placed
    lens = hooked("gpt2", processing)
    outs = {
        "post": lens.blocks[1].mlp.W_out,
        "z": lens.blocks[1].attn.W_O.flatten(0, 1),
    }
    for name, matrix in outs.items():
        sae = client.dictionary(name, processing)
        rows = torch.from_numpy(sae.weight("W_dec")) @ matrix
        logits = seen(lens, rows) @ lens.W_U
        close(sae.weights.logits([5], gain=False), logits[:, [5]].T)
    with pytest.raises(cupola.InvalidArgument, match="ln2.hook_normalized.*hook_resid_pre"):
        client.dictionary("normalized").weights.logits([5])


def test_rows_of_latents(zoo, client):
    sae = client.dictionary(saes(zoo)["standard"][0])
    for vectors, matrix in (
        (sae.weights.decoder, sae.weight("W_dec")),
        (sae.weights.encoder, sae.weight("W_enc").T),
    ):
        np.testing.assert_array_equal(vectors([9, 4]), matrix[[9, 4]])
        np.testing.assert_array_equal(vectors(4), matrix[4])


def test_declared_density(placed):
    client, density = placed
    close(client.dictionary("post").weights.density(), density)
    close(client.dictionary("post").weight("density", rows=[3]), density[[3]])
    with pytest.raises(cupola.NotFound, match="sparsity.safetensors"):
        client.dictionary("z").weights.density()


def test_answers_come_from_the_cache(zoo, client):
    sae = client.dictionary(saes(zoo)["standard"][0])
    before = client.cache_statistics()
    first = sae.weights.gram([1, 2, 3])
    again = sae.weights.gram([1, 2, 3])
    np.testing.assert_array_equal(first, again)
    assert client.cache_statistics().hits > before.hits
    # Processings do not share an entry.
    raw = client.model("gpt2", "raw").weight("W_U")
    folded = client.model("gpt2", "folded").weight("W_U")
    assert np.abs(raw - folded).max() > 0.1


def test_questions_that_contradict_are_refused(zoo, client):
    """As messages: the Python client does not make them."""
    protos = cupola.client._protos
    name = saes(zoo)["standard"][0]
    connection = client._connection

    def refused(method, request, *words):
        with pytest.raises(cupola.InvalidArgument) as error:
            connection.stream(method, request, "", lambda header: [])
        for word in words:
            assert word in str(error.value), str(error.value)

    asked = protos.weights.LatentWeightsRequest
    latents = connection.analysis.GetLatentWeights
    refused(latents, asked(dictionary=name), "no question", "nearest")
    refused(latents, asked(nearest=asked.Nearest(latents=[1])), "dictionary is empty")
    refused(latents, asked(dictionary=name, gram=asked.Gram()), "latents is empty")
    refused(latents, asked(dictionary=name, tokens=asked.Tokens()), "latents is empty")
    refused(latents, asked(dictionary=name, logits=asked.Logits()), "tokens is empty")
    raw = protos.common.RAW
    gram = asked(dictionary=name, gram=asked.Gram(latents=[1]), processing=raw)
    refused(latents, gram, "processing", "tokens only")
    both = asked.Nearest(latents=[1], vectors=cupola._tensors.to_tensor(np.ones((1, 32), np.float32)))
    refused(latents, asked(dictionary=name, nearest=both), "latents", "vectors")
    sided = asked(dictionary=name, nearest=asked.Nearest(latents=[1], side=7))
    refused(latents, sided, "side is 7", "DECODER")

    weight = protos.weights.WeightRequest
    entries = connection.analysis.GetWeight
    refused(entries, weight(name="W_U"), "no owner")
    refused(entries, weight(model="gpt2"), "name is empty")
    refused(entries, weight(dictionary=name, name="W_dec", processing=raw), "processing")
    refused(entries, weight(model="gpt2", name="b_U", rows=[1] * 400), "rows has 400", "300")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (lambda m, s: m.weight("blocks.9.mlp.W_in"), ["9", "0 to 2"]),
        (lambda m, s: m.weight("blocks.1.mlp.W_gate"), ["W_gate", "mlp.W_in"]),
        (lambda m, s: m.weight("W_in"), ["W_in", "embed.W_E"]),
        (lambda m, s: m.weight("W_U", rows=[32]), ["rows", "32", "31"]),
        (lambda m, s: m.weight("W_U", columns=[300]), ["columns", "300", "299"]),
        (lambda m, s: m.weight("ln_final.w", columns=[0]), ["columns", "one axis"]),
        (lambda m, s: m.weight("W_U", rows=[-1]), ["rows", "-1"]),
        (lambda m, s: s.weight("W_x"), ["W_x", "W_dec"]),
        (lambda m, s: s.weight("b_dec", rows=[99999]), ["rows", "99999"]),
        (lambda m, s: s.weights.nearest([203]), ["latents", "203", "202"]),
        (lambda m, s: s.weights.nearest([1], top_k=203), ["top_k", "203", "202"]),
        (lambda m, s: s.weights.nearest(), ["latents or vectors"]),
        (lambda m, s: s.weights.nearest(vectors=[[1.0, 2.0]]), ["inputs", "32"]),
        (lambda m, s: s.weights.nearest([1], side="left"), ["side", "left"]),
        (lambda m, s: s.weights.tokens([1], top=301), ["top", "301", "300"]),
        (lambda m, s: s.weights.tokens([500]), ["latents", "500"]),
        (lambda m, s: s.logit_weights([1], top=301), ["top", "301", "300"]),
        (lambda m, s: s.logit_weights([1], bottom=301), ["bottom", "301", "300"]),
        (lambda m, s: s.logit_weights([1], bins=10001), ["bins", "10001", "10000"]),
        (lambda m, s: s.logit_weights([1], bins=0), ["bins", "at least 1"]),
        (lambda m, s: s.logit_weights([203]), ["latents", "203", "202"]),
        (lambda m, s: s.logit_weights([]), ["latents", "empty"]),
        (lambda m, s: s.weights.logits([300]), ["tokens", "300", "299"]),
        (lambda m, s: s.weights.logits([3, 4], [5]), ["incorrect", "1", "2"]),
        (lambda m, s: s.weights.gram([1], threshold=-1), ["threshold", "-1"]),
    ],
)
def test_bad_requests_name_field_and_value(zoo, client, request_, words):
    model = client.model("gpt2")
    sae = client.dictionary(saes(zoo)["standard"][0])
    with pytest.raises((cupola.InvalidArgument, cupola.NotFound)) as error:
        request_(model, sae)
    for word in words:
        assert word in str(error.value), str(error.value)
