import sys
from pathlib import Path

import pytest

# Installed or not, the tests are of this repository's client.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[2] / "client" / "python")]

import cupola  # noqa: E402
from fake_server import FakeServer  # noqa: E402


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    fake.stop()


@pytest.fixture
def client(server):
    with cupola.connect(server.target, deadline=30) as connected:
        yield connected
