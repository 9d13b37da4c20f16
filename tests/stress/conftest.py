"""A small model whose answers are known, served under circumstances.

`tests/run.sh --stress` runs these.
"""

import cupola
import numpy as np
import pytest
from harness.server import Server, catalog_text
from harness.stress import MODEL, SAE
from harness.zoo import D_MODEL, make_dictionaries, make_models

@pytest.fixture(scope="session")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stress")
    model = make_models.make("gpt_neox", folder / "model")
    sae = make_dictionaries.make(
        "topk",
        folder / "sae",
        d_in=D_MODEL,
        hook_name="blocks.1.hook_resid_pre",
        seed=1,
    )
    return catalog_text({MODEL: model}, {SAE: (MODEL, sae)})


@pytest.fixture(scope="session")
def prompts():
    random = np.random.default_rng(0)
    return [random.integers(3, 90, size=n).tolist() for n in range(8, 58)]


@pytest.fixture(scope="session")
def expected(catalog, prompts, tmp_path_factory):
    """By prompt: its features, computed one at a time by a quiet server."""
    with Server(tmp_path_factory.mktemp("quiet"), catalog) as server:
        with cupola.connect(server.grpc) as client:
            sae = client.dictionary(SAE)
            return [sae.features([prompt]).csr for prompt in prompts]


@pytest.fixture
def check(expected):
    """Whether `answer` is prompt number `i`'s. Batches differ, so the last bits
    may: the tolerance is the project's for float32."""

    def check(i, answer):
        want, got = expected[i].toarray(), answer.csr.toarray()
        np.testing.assert_allclose(got, want, atol=5e-5 * np.abs(want).max(), rtol=0)

    return check
