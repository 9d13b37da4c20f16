"""Client.estimate: what every analysis tells of a request without computing."""

import cupola
import numpy as np
import pytest
from harness.server import Server, catalog_text
from harness.zoo import D_MODEL, make_dictionaries, make_models
from scipy.sparse import csr_matrix

MODEL, SAE, PAIR = "tiny", "tiny/sae", "tiny/pair"
D_SAE = 90
PROMPTS = [[3, 5, 7, 11, 13], [4, 6, 8, 10], [9, 8, 7]]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimates")
    model = make_models.make("gpt_neox", folder / "model")
    sae = make_dictionaries.make(
        "topk", folder / "sae", d_in=D_MODEL, d_sae=D_SAE,
        hook_name="blocks.1.hook_resid_pre", seed=2,
    )
    pair = make_dictionaries.make_pair(
        folder / "pair", d_in=D_MODEL, d_sae=D_SAE, k=10,
        hook_name="blocks.1.ln2.hook_normalized", seed=3,
    )
    catalog = catalog_text(
        {MODEL: model}, {SAE: (MODEL, sae), PAIR: (MODEL, pair)}
    )
    with Server(folder / "server", catalog) as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            yield client


PROCESSED = {
    "activations": lambda m, s, p: lambda: m.activations(
        PROMPTS, ["blocks.1.hook_resid_pre"]
    ),
    "features": lambda m, s, p: lambda: s.features(PROMPTS),
    "reconstruct": lambda m, s, p: lambda: s.reconstruct(PROMPTS),
    "quality": lambda m, s, p: lambda: s.quality(PROMPTS),
    "ablate": lambda m, s, p: lambda: s.ablate(PROMPTS),
    "run": lambda m, s, p: lambda: m.run(
        PROMPTS, [cupola.Zero("blocks.1.hook_mlp_out")]
    ),
    "generate": lambda m, s, p: lambda: m.generate(PROMPTS, 4),
    "attribute": lambda m, s, p: lambda: m.attribute(PROMPTS, tokens=[5, 6, 7]),
    "logit_lens": lambda m, s, p: lambda: m.logit_lens(PROMPTS),
    "jacobian": lambda m, s, p: lambda: p.jacobian(PROMPTS),
    "pair.ablate": lambda m, s, p: lambda: p.ablate(PROMPTS, draws=3),
    "sweep": lambda m, s, p: lambda: p.sweep(PROMPTS, draws=2),
    "mean_activation": lambda m, s, p: lambda: m.mean_activation(
        PROMPTS, "blocks.1.hook_resid_pre"
    ),
}
# Of one part: rows, or weights.
ONE_PART = {
    "weight": lambda m, s, p: lambda: m.weight("blocks.0.mlp.W_in", rows=[0, 1]),
    "decoder rows": lambda m, s, p: lambda: s.weight("W_dec", rows=[1, 2]),
    "nearest": lambda m, s, p: lambda: s.weights.nearest([3]),
    "inputs": lambda m, s, p: lambda: s.features(inputs=ROWS),
    "decode": lambda m, s, p: lambda: s.decode(csr_matrix(np.eye(3, D_SAE, dtype=np.float32))),
}
ROWS = np.ones((4, D_MODEL), np.float32)


@pytest.fixture(scope="module")
def handles(client):
    return client.model(MODEL), client.dictionary(SAE), client.pair(PAIR)


@pytest.mark.parametrize("operation", ONE_PART)
def test_of_one_part(client, handles, operation):
    call = ONE_PART[operation](*handles)
    estimate = client.estimate(call)
    assert (estimate.parts, estimate.cached_parts) == (1, 0)
    assert estimate.bytes > 0 and estimate.seconds > 0
    call()
    assert client.estimate(call).cached_parts == 1


@pytest.mark.parametrize("operation", PROCESSED)
def test_an_estimate_computes_nothing_and_knows_the_cache(
    client, handles, operation
):
    call = PROCESSED[operation](*handles)
    inserts = client.cache_statistics().inserts
    before = client.estimate(call)
    assert client.cache_statistics().inserts == inserts
    assert (before.parts, before.cached_parts) == (len(PROMPTS), 0)
    assert before.bytes > 0
    assert before.seconds > 0
    assert before.wait_seconds == 0
    answer = call()
    assert not answer.from_cache
    after = client.estimate(call)
    assert after.cached_parts == len(PROMPTS)
    assert after.seconds == 0


def test_estimates_follow_what_was_measured(client, handles):
    sae = handles[1]
    for first in range(4):
        sae.features([[first, 20, 30, 40]])
    estimate = client.estimate(sae.features, [[77, 20, 30, 40]])
    assert estimate.measured
    assert 1e-4 < estimate.seconds < 10
    longer = client.estimate(sae.features, [[77, 20, 30, 40]] + PROMPTS)
    assert longer.bytes > estimate.bytes


def test_of_the_features_of_prompts_rows_and_columns_are_known(client, handles):
    estimate = client.estimate(handles[1].features, PROMPTS)
    assert (estimate.rows, estimate.columns) == (sum(map(len, PROMPTS)), D_SAE)


def test_a_table_is_a_sum(client, handles):
    sae = handles[1]
    ablations = client.estimate(sae.ablate, [[50, 51, 52, 53]])
    table = client.estimate(sae.ablation_table, [[50, 51, 52, 53]])
    assert table.seconds > ablations.seconds
    assert table.parts == 3 * ablations.parts


def test_a_stored_mean_is_not_stored(client, handles):
    model = handles[0]
    client.estimate(
        model.mean_activation, PROMPTS, "blocks.1.hook_resid_pre", name="never"
    )
    assert [mean.name for mean in model.means()] == []


def test_a_wrong_request_is_refused_as_ever(client, handles):
    with pytest.raises(cupola.InvalidArgument, match="latents"):
        client.estimate(handles[1].features, PROMPTS, latents=[D_SAE])


def test_a_call_that_computes_nothing_has_no_estimate(client):
    with pytest.raises(cupola.InvalidArgument, match="estimated"):
        client.estimate(client.models)
    # And is not made, where it would change something.
    before = client.cache_statistics().inserts
    with pytest.raises(cupola.InvalidArgument, match="estimated"):
        client.estimate(client.clear_cache)
    assert client.cache_statistics().inserts == before


def test_what_never_fits_is_refused_with_both_numbers(tmp_path):
    model = make_models.make("gpt_neox", tmp_path / "model")
    catalog = catalog_text({MODEL: model}, {})
    with Server(tmp_path / "server", catalog, "--request_memory=64K") as server:
        server.wait_until_loaded()
        with cupola.connect(server.grpc) as client:
            model = client.model(MODEL)
            hook = ["blocks.1.hook_resid_pre"]
            assert len(model.activations([3, 4], hook)[hook[0]]) == 1
            with pytest.raises(cupola.ResourceExhausted, match="65536"):
                model.activations([[3] * 60] * 20, hook)
