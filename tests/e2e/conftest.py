"""A browser on the page of a real floor, a wire to it that can be cut, and a second listener.

The floor is the session's; each test gets a page of its own in one signed-in browser.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.conftest import CHROMIUM
from tests.floors import Floor
from tests.tcp_proxy import TcpProxy

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# Of a module, not of the session: while playwright's loop is open in this thread, no async test can run.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's Chromium; where there is none these tests are left out."""
    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def operator(browser: Browser, floor: Floor) -> Iterator[BrowserContext]:
    """A browser that was signed in by a link, once."""
    context = browser.new_context(viewport={"width": 1920, "height": 1080})
    context.new_page().goto(floor.signin_url())
    yield context
    context.close()


@pytest.fixture
def page(operator: BrowserContext, floor: Floor) -> Iterator[Page]:
    """The page, live; an error of its scripts or a breach of the content policy fails the test."""
    yield from _open(operator, floor.url)


@pytest.fixture
def wire(floor: Floor) -> Iterator[TcpProxy]:
    """A way to the floor that the test may cut."""
    host, port = floor.url.removeprefix("http://").rstrip("/").split(":")
    with TcpProxy(host, int(port)) as wire:
        yield wire


@pytest.fixture
def wired_page(operator: BrowserContext, wire: TcpProxy) -> Iterator[Page]:
    """The page as seen through ``wire``; cookies know no ports, so it is signed in as well."""
    yield from _open(operator, f"http://127.0.0.1:{wire.port}")


def _open(context: BrowserContext, url: str) -> Iterator[Page]:
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(url)
    page.locator(".link[data-state=live]").wait_for(timeout=20_000)
    yield page
    page.close()
    assert problems == []
