"""The server answers as /v1/openapi.json says, whatever it is asked."""

import pytest
from harness.server import Server
from harness.zoo import Zoo

schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis, pinned in tests/requirements.txt, is not installed"
)
from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    zoo = Zoo(tmp_path_factory.mktemp("small"))
    zoo.add("gpt2", "standard")
    with Server(tmp_path_factory.mktemp("openapi"), zoo.catalog()) as server:
        server.wait_until_loaded()
        yield server


@pytest.fixture(scope="module")
def described(server):
    return schemathesis.openapi.from_url(f"http://{server.http}/v1/openapi.json")


OPERATIONS = 34  # at least


def test_answers_are_as_described(described, server):
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) >= OPERATIONS
    for operation in operations:

        @settings(
            max_examples=10,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case):
            response = case.call(timeout=60)
            case.validate_response(response, checks=CHECKS)
            assert response.status_code != 500, response.text

        ask()
        assert server.get("/healthz") == "ok\n"
