"""Every route of the HTTP API against requests made from its own OpenAPI document, good ones and bad ones."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cluster.ports import free_port
from serve_apps import openapi
from serve_apps.auth import issue_token
from tests.fakes_api import SECRET, ApiFloor

EXAMPLES = 20
"""Requests per route, half of them meant to be wrong."""

DOCUMENT: dict[str, Any] = json.loads(openapi.text())
schema = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [
    pytest.param(found.ok(), id=f"{found.ok().method.upper()} {found.ok().path}")
    for found in schema.get_all_operations()
    if not found.ok().path.startswith("/connection/")  # streams: an answer that is a good one has no end
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    floor = ApiFloor(tmp_path_factory.mktemp("fuzzed"))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(floor.app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)
    floor.engine.dispose()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_answer_is_one_that_the_document_knows(operation: Any, url: str) -> None:
    """No server error, no status, type or shape that the document does not name; bad requests are refused."""
    token = issue_token(SECRET, sub="nora", tenant=None, roles=["admin"], ttl_s=600)
    headers = {"Authorization": f"Bearer {token}"}
    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @settings(max_examples=EXAMPLES, phases=(Phase.generate,), suppress_health_check=list(HealthCheck), database=None)
    @seed(1)
    @given(case=st.one_of(modes))
    def check(case: schemathesis.Case) -> None:
        # What is refused for two fields that do not go together is of their types, and no schema says it.
        case.call_and_validate(base_url=url, headers=headers, excluded_checks=[positive_data_acceptance])

    check()
