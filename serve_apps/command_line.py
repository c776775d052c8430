"""``watchfloor command``: hands a command in over the HTTP API and follows it to its end.

Asks and prints nothing itself. Invariant: a request that got no answer may be made again
under the same request id, and this does so: the device gets one command.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import HTTPError

from cluster.settings import Settings
from serve_apps.floor_state import FloorRecord
from serve_apps.status import call_api

PATH = "/api/v1/commands"
TRIES = 3
PAUSE_S = 0.2
MARGIN_S = 10.0
"""After the deadline: until the floor has written down that it passed."""
FINAL = frozenset({"ok", "failed", "timed_out"})


class CommandLineError(Exception):
    """A command was not handed in, or cannot be followed; the text says why."""


def parse_target(text: str) -> tuple[str, str]:
    """Return tenant and device of ``tenant/device``."""
    tenant, slash, device = text.partition("/")
    if not (tenant and slash and device):
        raise CommandLineError(f"the device must be named as TENANT/DEVICE, got {text!r}")
    return tenant, device


def parse_payload(text: str) -> dict[str, Any]:
    """Return the payload, a JSON object."""
    try:
        payload = json.loads(text)
    except ValueError as error:
        raise CommandLineError(f"the payload is no JSON: {error}") from error
    if not isinstance(payload, dict):
        raise CommandLineError('the payload must be a JSON object, such as {"do": "lock"}')
    return payload


def send(
    settings: Settings,
    record: FloorRecord,
    target: tuple[str, str],
    payload: dict[str, Any],
    timeout_s: float,
    request_id: str | None,
) -> dict[str, Any]:
    """Hand a command in; return it as the API shows it."""
    body = {
        "tenant": target[0],
        "device": target[1],
        "payload": payload,
        "timeout_s": timeout_s,
        "request_id": request_id or uuid.uuid4().hex,
    }
    return _asked(lambda: call_api(settings, record, PATH, body))


def follow(settings: Settings, record: FloorRecord, command: dict[str, Any], timeout_s: float) -> Iterator[Any]:
    """Yield the command each time that something happened to it, until it has ended."""
    give_up_s = time.monotonic() + timeout_s + MARGIN_S
    path = f"{PATH}/{command['id']}"
    yield command
    while command["state"] not in FINAL:
        if time.monotonic() > give_up_s:
            raise CommandLineError(f"command {command['id']} is still {command['state']}: the floor does not end it")
        time.sleep(PAUSE_S)
        now = _asked(lambda: call_api(settings, record, path))["command"]
        if now["version"] != command["version"]:
            command = now
            yield command


def _asked(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    for left in reversed(range(TRIES)):
        try:
            return ask()
        except HTTPError as error:
            raise CommandLineError(_reason(error)) from error
        except (OSError, ValueError) as error:
            if not left:
                raise CommandLineError(f"the floor does not answer: {error}") from error
            time.sleep(PAUSE_S)
    raise AssertionError("unreachable")


def _reason(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"the floor answered {error.code}"
