"""The OpenAPI document: complete, current, and served to whoever has a role."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from serve_apps import openapi
from serve_apps.api.shapes import SHAPES
from serve_apps.authorisation import ROUTES, Access, Role
from serve_apps.error_response import CODES
from tests.fakes_api import ApiFloor

ROOT = Path(__file__).parents[3]
DOCUMENT: dict[str, Any] = json.loads(openapi.text())
OPERATIONS = [
    pytest.param(method.upper(), path, operation, id=f"{method} {path}")
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
PAGES = {("GET", "/"), ("GET", "/static/{}"), ("GET", "/signin")}
"""What people look at; no API."""


def test_file_is_current() -> None:
    """After a change of a route: make docs."""
    assert openapi.text() == (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")


def test_every_route_is_in_the_document() -> None:
    """But pages, and sockets, for which OpenAPI has no word."""
    found = {
        (method, path.count("{")) for method, path in [(param.values[0], str(param.values[1])) for param in OPERATIONS]
    }
    expected = {(method, path) for method, path in ROUTES if method != "WEBSOCKET"} - PAGES
    assert len(OPERATIONS) == len(expected)
    assert found == {(method, path.count("{")) for method, path in expected}


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_a_route_says_all_there_is_to_know(method: str, path: str, operation: dict[str, Any]) -> None:
    """A summary, schemas of request and answer, its role and the shape of its errors."""
    assert operation["summary"].endswith(".")
    if method == "POST":
        (body,) = operation["requestBody"]["content"].values()
        assert body["schema"]
    (success,) = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    (content,) = success["content"].values()
    assert content["schema"]
    if "x-least-role" not in operation:
        return
    statuses = {"401", "403", "503"} | ({"400", "413", "422"} if method == "POST" else set())
    assert statuses <= set(operation["responses"])
    for status, answer in operation["responses"].items():
        if not status.startswith("2"):
            assert answer["description"]
            assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
            assert int(status) in CODES


def test_every_answer_of_the_api_has_its_shape() -> None:
    """None is just any object."""
    assert set(SHAPES) == {(method, path) for method, path in ROUTES if path.startswith("/api/v1/")}


def test_roles_are_the_tables() -> None:
    """Public routes have none."""
    said = {param.values[2].get("x-least-role") for param in OPERATIONS}  # type: ignore[union-attr]
    assert said == {None, *(role.value for role in ROUTES.values() if isinstance(role, Role))}
    public = [param for param in OPERATIONS if "x-least-role" not in param.values[2]]  # type: ignore[operator]
    assert len(public) == len([key for key, access in ROUTES.items() if isinstance(access, Access)]) - len(PAGES) - 2


def test_references_lead_somewhere() -> None:
    """No schema is named that is not there."""
    text = json.dumps(DOCUMENT)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= set(DOCUMENT["components"]["schemas"])


async def test_it_is_served_to_viewers(api: ApiFloor) -> None:
    """The same document, and nothing for nobody."""
    async with api.caller("viewer") as viewer, api.caller() as nobody:
        answer: httpx.Response = await viewer.get("/api/openapi.json")
        assert answer.json() == DOCUMENT
        assert (await nobody.get("/api/openapi.json")).status_code == 401


CALLS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/api/publish", {"channel": "run:r1", "data": {"a": 1}}),
    ("POST", "/api/broadcast", {"channels": ["run:r1", "no such"], "data": 1}),
    ("POST", "/api/history", {"channel": "run:r1", "limit": 5}),
    ("POST", "/api/history", {"channel": "no such"}),
    ("POST", "/api/presence", {"channel": "run:r1"}),
    ("POST", "/api/presence_stats", {"channel": "run:r1"}),
    ("POST", "/api/channels", {}),
    ("POST", "/api/info", {}),
    ("POST", "/api/subscribe", {"user": "ann", "channel": "run:r1"}),
    ("POST", "/api/unsubscribe", {"user": "ann", "channel": "run:r1"}),
    ("POST", "/api/disconnect", {"user": "ann"}),
    ("POST", "/api/history_remove", {"channel": "run:r1"}),
    ("POST", "/api/batch", {"commands": [{"info": {}}, {"history": {"channel": "no such"}}]}),
    ("POST", "/api/publish", {"channel": 1}),
    ("POST", "/api/disconnect", {"user": ""}),
    ("GET", "/api/v1/config", None),
    ("GET", "/api/v1/status", None),
    ("GET", "/api/v1/alerts/sparks?ids=a", None),
    ("POST", "/api/v1/alerts/actions", {"action": "acknowledge", "ids": ["no-such"], "request_id": "r1234567"}),
    ("GET", "/api/v1/devices", None),
    ("GET", "/api/v1/devices/t/d/telemetry", None),
    ("POST", "/api/v1/runs", {"task": "train_model", "arguments": {"model_type": "anomaly_detector"}}),
    ("POST", "/api/v1/runs/no-such/cancel", {}),
    ("GET", "/api/v1/labels", None),
    ("POST", "/api/v1/labels/lease", {"session": "session-1", "count": 2}),
    ("POST", "/api/v1/labels/renew", {"session": "session-1"}),
    ("POST", "/api/v1/labels/release", {"session": "session-1"}),
    ("POST", "/api/v1/labels/skip", {"id": "no-such", "token": 1}),
    ("GET", "/api/v1/models", None),
    ("GET", "/api/v1/datasets", None),
    ("GET", "/api/v1/datasets/no-such", None),
    ("GET", "/api/v1/models/journal", None),
    ("GET", "/api/v1/models/anomaly_detector/no-such", None),
    ("GET", "/api/v1/models/of-alert/no-such", None),
    ("GET", "/api/v1/models/anomaly_detector/versions/champion/report", None),
    ("POST", "/api/v1/models/anomaly_detector/versions/champion/report", {}),
    ("POST", "/api/v1/models/rollback", {"expected_revision": 0, "reason": "a test"}),
    ("GET", "/api/v1/dead-letters", None),
    ("GET", "/api/v1/dead-letters/1", None),
    ("POST", "/api/v1/dead-letters/replay", {"reason": "empty"}),
    ("POST", "/api/v1/dead-letters/replay", {"ids": [1]}),
    ("GET", "/api/v1/alerts", None),
    ("GET", "/api/v1/alerts/no-such", None),
    ("GET", "/api/v1/runs", None),
    ("GET", "/api/v1/lanes", None),
    ("GET", "/api/v1/circuits", None),
    ("POST", "/api/v1/circuits/mqtt_broker/force", {"state": "closed", "reason": "a test"}),
    ("POST", "/api/v1/circuits/mqtt_broker/reset", {"reason": "a test"}),
    ("POST", "/api/v1/circuits/mqtt-broker/reset", {"reason": "a test"}),
    ("GET", "/healthz", None),
]


async def test_answers_are_of_the_documents_schemas(api: ApiFloor) -> None:
    """Results and errors, as a floor really gives them."""
    async with api.caller("admin") as caller:
        for method, path, body in CALLS:
            answer = await caller.request(method, path, json=body)
            template = next(
                known
                for known in DOCUMENT["paths"]
                if re.fullmatch(re.sub(r"{[^}]*}", "[^/]+", known), path.partition("?")[0])
            )
            described = DOCUMENT["paths"][template][method.lower()]["responses"][str(answer.status_code)]
            schema = described["content"]["application/json"]["schema"]
            jsonschema.validate(answer.json(), schema | {"components": DOCUMENT["components"]})
