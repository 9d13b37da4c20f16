"""Dictionaries of other projects, imported with `cupola import` and served,
against those projects' own equations on the server's own activations (which
other tests hold against the oracles).

Tolerance: 5e-5 of the largest activation. A latent whose on/off decision changes
when the dictionary's input moves by that much is not compared.
"""

import cupola
import numpy as np
import pytest
import torch
from harness import upstream
from harness.server import Server, catalog_text
from harness.zoo import make_models

TOLERANCE = 5e-5
WIDTH = 32  # of the zoo's models
# Of a plain MLP's hidden layer, and of heads that are wider than the model.
WIDTHS = {"heindrich": 4 * WIDTH, "gemma-2-attention": 48}
# What each is served with: families with plain and gated MLPs, norms with and
# without bias, and post-norms.
MODELS = {"dunefsky": "gpt2", "heindrich": "gpt2", "gemma": "gemma2"}


def model_of(name):
    return MODELS.get(name.split("-")[0], "llama")


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imports")
    made = {}
    for name in upstream.ALL:
        width = WIDTHS.get(name, WIDTH)
        made[name] = upstream.make(name, folder / "sources" / name, d=width)
        cupola.import_dictionary(
            *(made[name].format, made[name].source, folder / "imported" / name),
            **(made[name].options or {}),
        )
    return folder, made


@pytest.fixture(scope="module")
def client(imports, tmp_path_factory):
    folder, made = imports
    models = {
        family: make_models.make(family, folder / "models" / family)
        for family in {model_of(name) for name in made}
    }
    dictionaries = {name: (model_of(name), folder / "imported" / name) for name in made}
    catalog = catalog_text(models, dictionaries)
    with Server(tmp_path_factory.mktemp("server"), catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as connected:
            yield connected


PROMPTS = [[0, *range(7, 7 + n)] for n in (1, 6, 19)]


@pytest.mark.parametrize("name", upstream.ALL)
def test_features_are_the_upstreams(imports, client, name):
    made = imports[1][name]
    entry = name + ":in" if made.format == "jsae" else name
    dictionary = client.dictionary(entry)
    assert dictionary.info.hook_in == made.hook
    folded = made.format == "dunefsky"
    model = client.model(model_of(name), processing="folded" if folded else None)
    rows = model.activations(PROMPTS, made.hook)[made.hook]
    x = torch.tensor(np.concatenate([r.reshape(len(r), -1) for r in rows])).double()
    expected = made.encode(x)
    decided = torch.ones_like(expected, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        moved = made.encode(x + TOLERANCE * x.abs().max() * noise)
        decided &= (moved > 0) == (expected > 0)
    assert decided.double().mean() > 0.9 and (expected > 0).sum() > 20
    features = dictionary.features(PROMPTS)
    actual = features.csr.toarray()
    difference = np.where(decided, np.abs(actual - expected.numpy()), 0)
    assert difference.max() <= TOLERANCE * expected.max()

    if "skip" in dictionary.info.architecture:
        with pytest.raises(cupola.InvalidArgument):
            dictionary.decode(features)
        return
    wanted = made.decode(torch.tensor(actual).double(), x).numpy()
    decoded = dictionary.decode(features)
    assert np.abs(decoded - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize(
    "name",
    [
        *("sparsify-skip", "sparsify-transcoder", "mwhanna-jumprelu"),
        *("gemma-2-transcoder", "dunefsky"),
    ],
)
def test_reconstructions_are_the_upstreams(imports, client, name):
    """With a skip connection, which needs the input, among them."""
    made = imports[1][name]
    folded = made.format == "dunefsky"
    model = client.model(model_of(name), processing="folded" if folded else None)
    acts = model.activations(PROMPTS, [made.hook, made.hook_out])
    x, y = (
        torch.tensor(np.concatenate(acts[hook])).double()
        for hook in (made.hook, made.hook_out)
    )
    wanted = made.decode(made.encode(x), x).numpy()
    found = client.dictionary(name).reconstruct(PROMPTS)
    difference = np.abs(found.reconstruction - wanted).max(axis=1)
    # A row may hold a latent that rounding decides.
    assert (difference <= TOLERANCE * np.abs(wanted).max()).mean() > 0.9
    assert np.abs(found.target - y.numpy()).max() <= TOLERANCE * y.abs().max()


def test_where_latents_fire_is_served(imports, client):
    density = client.dictionary("dunefsky").weight("density")
    expected = 10 ** upstream.normal(15, upstream.D_SAE, offset=-3.0).double()
    np.testing.assert_allclose(density, expected.numpy(), rtol=1e-5)
