"""Training from the page of a real floor: start, watch it learn, see its model judge, cancel."""

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.listener import SdkListener
from tests.e2e.looking import eventually, get

if TYPE_CHECKING:
    from tests.conftest import Floor

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


def test_a_training_moves_its_bar_and_its_model_judges_next(page: Page, floor: "Floor") -> None:
    """Rank 0's values rise on the page and at an SDK, its report is drawn, and the next alert names the version."""
    # A tenth of the floor's first minutes is enough telemetry; before that the run would say so and fail.
    eventually(lambda: get(page, "status")["readings_total"] > 8000, 120)
    page.evaluate(WATCH)
    with SdkListener(floor.url, floor.token()) as sdk:
        run_id = start(page, "telemetry")
        run = page.locator(f".run[data-id='{run_id}']")
        expect(run).to_have_attribute("data-state", re.compile("running|succeeded"), timeout=WORKER_START_MS)
        expect(run.locator(".run-message")).to_contain_text("held-out loss", timeout=120_000)
        run.locator("svg.loss path.val-line").wait_for(timeout=120_000)
        expect(run).to_have_attribute("data-state", "succeeded", timeout=240_000)
        version = get(page, f"runs/{run_id}")["result"]["model_id"]
        # Told before the run ends; the SDK's process may have it a moment later than the page.
        predictions = eventually(lambda: messages(sdk, "ml_prediction", run_id), 20)

    bar = [message["progress"] for message in messages(sdk, "task_progress", run_id)]
    assert bar == sorted(bar)
    assert bar[-1] == 100
    assert [message["model_id"] for message in predictions] == [version]
    assert {"forecast", "actual"} <= predictions[0].keys()

    percents = page.evaluate("window.__percents")
    rising = [value for index, value in enumerate(percents) if index == 0 or value > max(percents[:index])]
    assert rising == percents, "the bar went back"
    assert len(set(percents)) >= 5

    # Its report: asked for on the page, made by a run of its own, drawn beside the baselines.
    run.locator(".report-open").click()
    report = page.locator("#report")
    expect(report.locator(".report-state")).to_contain_text("not judged yet")
    report.get_by_label("Data set").select_option("recorded:ec2_request_latency_system_failure")
    report.get_by_text("Make a report").click()
    expect(report.locator("tr[data-kind='model'] th")).to_have_text(version, timeout=WORKER_START_MS)
    expect(report.locator("tr[data-kind='baseline'] th").first).to_have_text("ar-baseline")
    expect(report.get_by_role("img")).to_have_count(5)
    report.get_by_text("Close").click()

    page.locator("#tab-all").click()
    page.locator("#sort").select_option("newest")
    page.locator(f".rows .c-source:text-is('{version}')").first.wait_for(timeout=180_000)
    expect(page.locator("#machine")).to_contain_text(version)


def messages(sdk: SdkListener, kind: str, run_id: str) -> list[dict[str, Any]]:
    """Return what the page's user was told of a run, oldest first."""
    told = sdk.heard("user:local").values()
    return [message["data"] for message in told if message["type"] == kind and message["data"]["run_id"] == run_id]


def test_trainings_are_cancelled_from_the_page(page: Page, floor: "Floor") -> None:
    """One that learns and one that waits for it: both bars end with the reason, and the lane is free again."""
    page.locator("#train-epochs").fill("500")  # none that is over before it is cancelled
    learning = start(page, "recorded:nyc_taxi")
    run = page.locator(f".run[data-id='{learning}']")
    expect(run.locator(".run-message")).to_contain_text("loss", timeout=WORKER_START_MS)
    expect(run.locator(".run-percent")).to_have_text(re.compile(r"[1-9].* %"))
    waiting = start(page, "recorded:nyc_taxi")
    queued = page.locator(f".run[data-id='{waiting}']")
    expect(queued.locator(".run-message")).to_have_text(f"waits for a slot of ml_training, held by run {learning}")
    expect(page.locator("#training-note")).to_have_text("lane ml_training 1 / 1 · 1 waiting")
    lanes = floor.cli("lanes").stdout
    assert re.search(r"^ml_training +0 +1 of 1 +1 ", lanes, re.MULTILINE), lanes
    (lane,) = [lane for lane in get(page, "lanes")["lanes"] if lane["name"] == "ml_training"]
    assert (lane["holders"], list(lane["waiting"])) == ([learning], [waiting])

    queued.locator("button:text-is('Cancel')").click()
    expect(queued).to_have_attribute("data-state", "cancelled")
    run.locator("button:text-is('Cancel')").click()
    expect(run).to_have_attribute("data-state", "cancelled", timeout=60_000)
    for ended in (run, queued):
        expect(ended.locator(".run-message")).to_contain_text("cancelled by local")
    eventually(
        lambda: [lane["running"] for lane in get(page, "lanes")["lanes"] if lane["name"] == "ml_training"] == [0], 60
    )
