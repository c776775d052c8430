"""`watchfloor dead-letters`: it reads every page, and shows nothing that could steer a terminal."""

import base64
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.settings import Settings
from serve_apps import dead_letter_line as line
from serve_apps.floor_state import FloorRecord

FLOOR = (Settings(), cast(FloorRecord, SimpleNamespace()))


class Api:
    """Answers page by page, three letters in all."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def __call__(self, _settings: Settings, _record: FloorRecord, path: str, body: Any = None, *_: Any) -> Any:
        self.asked.append((path, body))
        last = 4 if len(self.asked) == 1 else 3
        outcomes = ["stored", "refused"] if len(self.asked) == 1 else ["known"]
        items = [{"id": last - at, "outcome": outcome} for at, outcome in enumerate(outcomes)]
        return {"items": items, "next_cursor": 3 if len(self.asked) == 1 else None}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    api = Api()
    monkeypatch.setattr(line, "call_api", api)
    return api


def test_a_list_reads_as_many_pages_as_it_takes(api: Api) -> None:
    """With the filter on each."""
    assert len(line.find(*FLOOR, 100, reason="empty", topic=None, replayed=None)) == 3
    assert [path for path, _ in api.asked] == [
        "/api/v1/dead-letters?reason=empty&limit=100",
        "/api/v1/dead-letters?reason=empty&cursor=3&limit=98",
    ]


def test_a_replay_goes_through_every_page_and_counts(api: Api) -> None:
    """The cursor goes on below the last letter, so one that is refused again is not met twice."""
    done = line.replay(*FLOOR, [], reason=None, topic="wf/acme/", all=None)

    assert done["counts"] == {"stored": 1, "known": 1, "refused": 1}
    assert [body for _, body in api.asked] == [{"topic": "wf/acme/"}, {"topic": "wf/acme/", "cursor": 3}]


def test_what_a_stranger_sent_does_not_steer_the_terminal() -> None:
    """Escape sequences are shown, not obeyed."""
    payload = base64.b64encode(b"\x1b[2J\xff{").decode()

    text = line.render_letter({"id": 1, "topic": "a\x07", "payload_base64": payload, "preview": "x"})

    assert text == "id             1\ntopic          a\\x07\n\n\\x1b[2J\\xff{"
