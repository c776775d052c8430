"""What the tests of the page share: patience, the API as the page's user, the way to a row."""

import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page


def eventually(condition: Callable[[], Any], timeout_s: float, every_s: float = 1.0) -> Any:
    """Return the first true answer of ``condition``."""
    give_up_at = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < give_up_at, f"not within {timeout_s:g} s: {condition}"
        time.sleep(every_s)
    return answer


def get(page: Page, path: str) -> Any:
    """Ask the API as the signed-in user."""
    answer = page.context.request.get(_url(page, path))
    assert answer.ok, answer.text()
    return answer.json()


def _url(page: Page, path: str) -> str:
    return f"{page.url.split('#')[0].rstrip('/')}/api/v1/{path}"


def alerts(page: Page, **params: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in ({"limit": "500"} | params).items())
    items: list[dict[str, Any]] = get(page, f"alerts?{query}")["items"]
    return items


def show(page: Page, alert_id: str) -> None:
    """Bring an alert's row into view and open it."""
    page.locator("#tab-all").click()
    page.locator("#search").fill(alert_id)
    page.locator(f"#row-{alert_id}").click()
    page.locator("#drawer .drawer-title").wait_for()
