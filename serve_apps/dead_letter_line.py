"""What `watchfloor dead-letters` asks the floor, and how it shows the answers.

Over the HTTP API as the floor's owner. Invariant: every page is read, so what is printed or
replayed is all that was asked for.
"""

import base64
import json
from collections import Counter
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode

from rich.table import Table

from cluster.settings import Settings
from serve_apps.floor_state import FloorRecord
from serve_apps.status import call_api

PATH = "/api/v1/dead-letters"
PAGE = 500
TIMEOUT_S = 60.0
"""A replay of 500 letters commits 500 times."""
COLUMNS = ("id", "last_at", "count", "reason", "topic", "detail")


class DeadLetterLineError(Exception):
    """The floor did not answer, or refused; the text says why."""


def find(settings: Settings, record: FloorRecord, limit: int, **filters: Any) -> list[dict[str, Any]]:
    """Return at most ``limit`` letters, the newest first.

    Raises:
        DeadLetterLineError: the floor does not answer, or refuses.
    """
    found: list[dict[str, Any]] = []
    cursor = None
    while len(found) < limit:
        asked = filters | {"cursor": cursor, "limit": min(PAGE, limit - len(found))}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        page = _ask(settings, record, f"{PATH}?{query}")
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return found


def show(settings: Settings, record: FloorRecord, letter_id: int) -> dict[str, Any]:
    """Return one letter with its payload.

    Raises:
        DeadLetterLineError: the floor does not answer, or refuses.
    """
    found: dict[str, Any] = _ask(settings, record, f"{PATH}/{letter_id}")
    return found


def replay(settings: Settings, record: FloorRecord, ids: list[int], **filters: Any) -> dict[str, Any]:
    """Try letters again, these or all that the filters find; return ``{counts, items}``.

    Raises:
        DeadLetterLineError: as above; what was done until then is done, and may be asked for again.
    """
    items: list[dict[str, Any]] = []
    if ids:
        bodies: list[dict[str, Any]] = [{"ids": ids[at : at + PAGE]} for at in range(0, len(ids), PAGE)]
    else:
        bodies = [{name: value for name, value in filters.items() if value is not None}]
    for body in bodies:
        cursor: int | None = None
        while True:
            asked = body if cursor is None else body | {"cursor": cursor}
            page = _ask(settings, record, f"{PATH}/replay", asked)
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    counts = Counter(item["outcome"] for item in items)
    return {"counts": {name: counts[name] for name in ("stored", "known", "refused")}, "items": items}


def render_list(letters: list[dict[str, Any]]) -> Table:
    """Return letters as a table for a terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in COLUMNS:
        table.add_column(column.replace("_", " "), header_style="dim", overflow="fold")
    for letter in letters:
        table.add_row(*(_plain(letter[column]) for column in COLUMNS))
    return table


def render_letter(letter: dict[str, Any]) -> str:
    """Return one letter as text: its fields, then its payload as far as that is text."""
    payload = base64.b64decode(letter["payload_base64"])
    lines = [
        f"{name:14} {_plain(value)}" for name, value in letter.items() if name not in {"payload_base64", "preview"}
    ]
    return "\n".join([*lines, "", _plain(payload.decode("utf-8", "backslashreplace"))])


def _ask(settings: Settings, record: FloorRecord, path: str, body: Any = None) -> Any:
    try:
        return call_api(settings, record, path, body, TIMEOUT_S)
    except HTTPError as error:
        try:
            text = json.loads(error.read())["error"]["message"]
        except (ValueError, KeyError, TypeError):
            text = str(error)
        raise DeadLetterLineError(text) from error
    except (OSError, ValueError) as error:
        raise DeadLetterLineError(f"the floor does not answer: {error}") from error


def _plain(value: Any) -> str:
    """Return a text without control characters: what a stranger sent must not steer a terminal."""
    text = "" if value is None else str(value)
    return "".join(one if one.isprintable() or one == "\n" else f"\\x{ord(one):02x}" for one in text)
