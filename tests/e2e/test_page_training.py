"""Training from the page of a real floor: start, watch it learn, see its model judge, cancel."""

import re
import time

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.looking import eventually, get

pytestmark = [pytest.mark.floor, pytest.mark.browser, pytest.mark.timeout(600)]

WORKER_START_MS = 150_000
"""Two busy cores need this long to start a job's driver and a Train worker."""

WATCH = """
() => {
  window.__percents = [];
  const note = () => {
    const run = document.querySelector(".run");
    const percent = parseFloat(run?.querySelector(".run-percent")?.textContent);
    if (Number.isFinite(percent) && window.__percents.at(-1) !== percent) window.__percents.push(percent);
  };
  const all = { subtree: true, childList: true, characterData: true };
  new MutationObserver(note).observe(document.getElementById("runs"), all);
}
"""


def start(page: Page, dataset: str) -> str:
    """Press the page's button and return the new run's id."""
    known = {run["id"] for run in get(page, "runs")["items"]}
    page.locator("#train-data").select_option(dataset)
    page.locator("#train-start").click()
    run_id: str = eventually(
        lambda: next((r["id"] for r in get(page, "runs")["items"] if r["id"] not in known), ""), 20
    )
    page.locator(f".run[data-id='{run_id}']").wait_for()
    return run_id


def test_a_training_moves_its_bar_and_its_model_judges_next(page: Page) -> None:
    """Rank 0's values rise on the page, a held-out loss is among them, and the next alert names the version."""
    # A tenth of the floor's first minutes is enough telemetry; before that the run would say so and fail.
    eventually(lambda: get(page, "status")["readings_total"] > 8000, 120)
    page.evaluate(WATCH)
    run_id = start(page, "telemetry")
    run = page.locator(f".run[data-id='{run_id}']")
    expect(run).to_have_attribute("data-state", re.compile("running|succeeded"), timeout=WORKER_START_MS)
    expect(run.locator(".run-message")).to_contain_text("held-out loss", timeout=120_000)
    run.locator("svg.loss path.val-line").wait_for(timeout=120_000)
    expect(run).to_have_attribute("data-state", "succeeded", timeout=240_000)

    percents = page.evaluate("window.__percents")
    rising = [value for index, value in enumerate(percents) if index == 0 or value > max(percents[:index])]
    assert rising == percents, "the bar went back"
    assert len(set(percents)) >= 5

    version = get(page, f"runs/{run_id}")["result"]["model_id"]
    page.locator("#tab-all").click()
    page.locator("#sort").select_option("newest")
    page.locator(f".rows .c-source:text-is('{version}')").first.wait_for(timeout=180_000)
    expect(page.locator("#machine")).to_contain_text(version)


def test_a_training_is_cancelled_from_the_page(page: Page) -> None:
    """Its bar ends with the reason, and the lane is free again."""
    run_id = start(page, "recorded:nyc_taxi")
    run = page.locator(f".run[data-id='{run_id}']")
    time.sleep(3)
    run.locator("button:text-is('Cancel')").click()

    expect(run).to_have_attribute("data-state", "cancelled", timeout=60_000)
    expect(run.locator(".run-message")).to_contain_text("cancelled by local")
    eventually(
        lambda: [lane["running"] for lane in get(page, "lanes")["lanes"] if lane["name"] == "ml_training"] == [0], 60
    )
