"""Broadcasts from a program outside Ray, over real HTTP on loopback."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cluster.ports import free_port
from realtime.errors import TransportError
from realtime.publication import Draft, Priority
from realtime.transport_http import HttpTransport

# A plain program: one call, and the interpreter ends. Ray must not even be imported for it.
PROGRAM = """
import sys
from realtime import broadcast_to_websocket_group
assert broadcast_to_websocket_group("ops", "system_alert", {"n": 1}, "high")
assert "ray" not in sys.modules
"""


class Api(ThreadingHTTPServer):
    """Answers as the floor's API does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", free_port()), Handler)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[tuple[int, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, Api)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((f"{self.path} {self.headers['Authorization']}", body))
        status, answer = self.server.answers.pop(0) if self.server.answers else (200, {"result": {}})
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def transport(api: Api) -> Iterator[HttpTransport]:
    opened = HttpTransport(api.url, "secret")
    yield opened
    opened.close()


def test_each_message_is_one_request_with_a_key(api: Api, transport: HttpTransport) -> None:
    """So that a repeated batch is published once."""
    drafts = [
        Draft("user:1", b'{"a":1}', Priority.HIGH),
        Draft("run:1", b'{"b":2}', Priority.PROGRESS, coalesce_key="bar"),
        Draft("user:1", b'{"c":3}', key="own"),
    ]
    transport.send("batch", drafts, 5)
    path = "/api/publish Bearer secret"

    assert api.requests == [
        (path, {"channel": "user:1", "data": {"a": 1}, "idempotency_key": "batch-0", "priority": "high"}),
        (
            path,
            {
                "channel": "run:1",
                "data": {"b": 2},
                "idempotency_key": "batch-1",
                "priority": "progress",
                "coalesce_key": "bar",
            },
        ),
        (path, {"channel": "user:1", "data": {"c": 3}, "idempotency_key": "own", "priority": "normal"}),
    ]


@pytest.mark.parametrize(
    ("status", "answer", "reason", "is_final"),
    [
        pytest.param(503, {"error": {}}, "unreachable", False, id="floor-is-away"),
        pytest.param(429, {}, "unreachable", False, id="too-many-requests"),
        pytest.param(401, {}, "not_allowed", True, id="bad-token"),
        pytest.param(403, {}, "not_allowed", True, id="forbidden"),
        pytest.param(422, {}, "refused", True, id="bad-request"),
        pytest.param(200, {"error": {"code": 103}}, "refused", True, id="error-inside-an-answer"),
    ],
)
def test_a_failure_says_whether_repeating_helps(
    api: Api, transport: HttpTransport, status: int, answer: dict[str, Any], reason: str, is_final: bool
) -> None:
    """And how many messages before it were confirmed."""
    api.answers = [(200, {"result": {}}), (status, answer)]
    with pytest.raises(TransportError) as raised:
        transport.send("batch", [Draft("user:1", b"{}") for _ in range(3)], 5)

    assert raised.value.args == ("http", reason, is_final, 1 if is_final else 0)


def test_a_floor_that_is_not_there_may_come_back() -> None:
    """Nothing is final about a refused connection."""
    transport = HttpTransport(f"http://127.0.0.1:{free_port()}", "")
    with pytest.raises(TransportError) as raised:
        transport.send("batch", [Draft("user:1", b"{}")], 1)
    transport.close()

    assert raised.value.args == ("http", "unreachable", False, 0)


def test_a_plain_program_needs_one_call(api: Api) -> None:
    """Its message leaves before the interpreter does, and Ray stays unimported."""
    env = {**os.environ, "WATCHFLOOR_URL": api.url, "WATCHFLOOR_TOKEN": "secret"}
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=env, timeout=30)
    ((path, body),) = api.requests

    assert (path, body["channel"], body["data"]["data"]) == ("/api/publish Bearer secret", "group:ops", {"n": 1})
