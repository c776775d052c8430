"""The page of a real floor in a real browser: what an operator sees is what the floor knows.

Everything here is unedited: the shipped series at the printed speed, the demo's devices,
the real model. Times are bounds of patience, not claims.
"""

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import BrowserContext, Page, WebSocket, expect

from cluster import names
from cluster.clock import SystemClock
from cluster.store import open_engine
from ingest.recorded import series_names
from tests.e2e.listener import Heard, SdkListener
from tests.e2e.looking import alerts, eventually, get, show
from tests.tcp_proxy import TcpProxy
from training.labelling.label_queue import LabelQueue
from training.labelling.labels import Question

if TYPE_CHECKING:
    from tests.conftest import Floor

pytestmark = [pytest.mark.floor, pytest.mark.browser, pytest.mark.timeout(420)]

SEVERITIES = ("info", "low", "warning", "high", "critical")
WINDOWS: dict[str, list[list[str]]] = json.loads(
    (Path(__file__).resolve().parents[2] / "ingest" / "data" / "nab" / "windows.json").read_text(encoding="utf-8")
)


def found_in_labelled_window(page: Page) -> dict[str, Any] | None:
    """Return a detector's alert whose evidence is over its threshold inside a window that people had labelled."""
    for alert in alerts(page):
        windows = WINDOWS.get(alert["device_id"].replace("-", "_") + ".csv", [])
        if alert["source"]["kind"] == "model" and windows:
            detail = get(page, f"alerts/{alert['id']}")
            if any(_is_labelled(point[3], windows) for point in _over_threshold(detail["evidence"])):
                return alert
    return None


def _over_threshold(evidence: dict[str, Any]) -> list[list[Any]]:
    return [point for point in evidence["points"] if point[2] is not None and point[2] >= evidence["threshold"]]


def _is_labelled(recorded_at: str, windows: list[list[str]]) -> bool:
    return any(_time(start) <= _time(recorded_at) <= _time(end) for start, end in windows)


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def test_a_device_alert_arrives_on_the_page(page: Page) -> None:
    """A device that raised an alert itself stands in the table with its own words."""
    alert = eventually(lambda: next((a for a in alerts(page) if a["source"]["kind"] == "device"), None), 60)
    show(page, alert["id"])

    expect(page.locator("#drawer .drawer-title")).to_have_text(alert["title"])
    expect(page.locator("#drawer")).to_contain_text("raised this alert itself")
    expect(page.locator(f"#row-{alert['id']} .c-device")).to_have_text(alert["device_id"])


def test_the_strip_shows_each_device_and_its_worst_alert(page: Page) -> None:
    """Every device of the demo has a cell; its colour and letter are those of the worst alert that fires."""
    cells = page.locator("#cells .cell")
    eventually(lambda: page.locator("#cells .cell:not([data-severity=none])").count() > 0, 60)

    def strip() -> dict[str, str]:
        found: list[tuple[str, str]] = cells.evaluate_all(
            "all => all.map(cell => [cell.lastChild.textContent, cell.dataset.severity])"
        )
        return dict(found)

    # Alerts come and go while both are read: they agree in a moment in which nothing changed.
    shown = eventually(lambda: (now := strip()) == worst_by_device(page) and now, 60)
    assert {name.replace("_", "-") for name in series_names()} | {"door-3", "pump-7"} <= shown.keys()
    assert set(shown.values()) > {"none"}
    letters = cells.evaluate_all("all => all.map(cell => [cell.dataset.severity, cell.firstChild.textContent])")
    assert all(letter == ("" if severity == "none" else severity[0].upper()) for severity, letter in letters)


def worst_by_device(page: Page) -> dict[str, str]:
    """Return the worst severity that fires on each device, as the API has it."""
    worst = {device["device"]: "none" for device in get(page, "devices")["items"]}
    firing = [one for one in alerts(page) if one["condition"] == "firing" and one["handling"] != "closed"]
    for alert in sorted(firing, key=lambda one: SEVERITIES.index(one["severity"])):
        worst[alert["device_id"]] = alert["severity"]
    return worst


def test_a_detector_alert_in_a_labelled_window_opens_its_evidence(page: Page) -> None:
    """The detector finds what people had labelled, and the row shows why."""
    alert = eventually(lambda: found_in_labelled_window(page), 300, every_s=3)
    show(page, alert["id"])

    chart = page.locator("#drawer figure.evidence svg")
    chart.wait_for()
    assert "score" in (chart.get_attribute("aria-label") or "")
    assert chart.locator("path.value-line").count() == 1
    assert chart.locator("circle.alert-point").count() == 2
    assert chart.locator("line.threshold").count() == 1
    assert chart.locator("rect.window").count() >= 1
    expect(page.locator("#drawer .facts")).to_contain_text(alert["recorded_at"].replace("T", " ")[:16])
    expect(page.locator("#drawer .events li").first).to_contain_text("raised")


def test_rows_stand_below_each_other_in_a_window_of_any_width(page: Page) -> None:
    """A narrow window has higher rows; turning a telephone moves all of them, and nothing sticks out."""
    eventually(lambda: page.locator(".rows .row").count() > 1, 60)
    for width, height in ((390, 844), (1920, 1080)):
        page.set_viewport_size({"width": width, "height": height})
        eventually(lambda: rows_are_apart(page), 10)
        assert page.evaluate("document.documentElement.scrollWidth") == width


def rows_are_apart(page: Page) -> bool:
    """Tell whether every row begins where the one above it ends, give or take a pixel."""
    boxes: list[tuple[float, float]] = page.locator(".rows .row").evaluate_all(
        "all => all.map(row => row.getBoundingClientRect()).map(box => [box.top, box.bottom])"
    )
    boxes.sort()
    return all(abs(below[0] - above[1]) <= 1 for above, below in itertools.pairwise(boxes))


def test_keys_acknowledge_and_judge(page: Page) -> None:
    """j selects, a acknowledges and the row leaves the tab; Enter opens, t says true alarm."""
    eventually(lambda: page.locator(".rows .row").count() > 1, 60)
    page.keyboard.press("j")
    first = page.locator(".rows .row[aria-selected=true]").get_attribute("data-id")
    page.keyboard.press("a")

    page.locator(f"#row-{first}").wait_for(state="detached", timeout=10_000)
    # The row leaves at once, before the floor has confirmed it.
    eventually(lambda: get(page, f"alerts/{first}")["alert"]["acked_by"] == "local", 20)

    page.keyboard.press("Enter")
    second = page.locator(".rows .row[data-open]").get_attribute("data-id")
    assert second != first
    page.keyboard.press("t")
    expect(page.locator(".verdict[data-verdict=true_positive]")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    judged = eventually(lambda: get(page, f"alerts/{second}")["alert"]["verdict"], 10)
    assert judged == "true_positive"


def test_a_silence_hides_an_alert_until_somebody_ends_it(page: Page) -> None:
    """s silences the alert in hand, x shows what is silenced, S lists the silences and ends one."""
    alert = eventually(lambda: next(iter(alerts(page, handling="new", suppressed="false")), None), 60)
    show(page, alert["id"])
    row = page.locator(f"#row-{alert['id']}")
    page.keyboard.press("s")
    page.locator("#silences [name=comment]").fill("rewiring")
    page.keyboard.press("Enter")
    expect(page.locator("#silences")).to_be_hidden()
    expect(page.locator("#drawer .facts")).to_contain_text("silence", ignore_case=True)
    expect(page.locator("#drawer .events")).to_contain_text("rewiring")
    expect(row).to_have_count(0)

    page.keyboard.press("x")
    expect(row).to_have_attribute("data-suppressed", "")
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+S")
    listed = page.locator("#silences li", has_text="rewiring")
    listed.get_by_role("button", name="End").click()
    expect(listed).to_have_count(0)
    page.keyboard.press("Escape")
    expect(row).not_to_have_attribute("data-suppressed", "")
    history = [event["action"] for event in get(page, f"alerts/{alert['id']}")["events"]]
    assert [one for one in history if "suppressed" in one] == ["suppressed", "unsuppressed"]


def test_an_acknowledgement_for_an_hour_says_when_it_ends(page: Page) -> None:
    """One button in the drawer; the history and the facts have the time."""
    alert = eventually(lambda: next(iter(alerts(page, handling="new", suppressed="false")), None), 60)
    show(page, alert["id"])
    page.locator(".ack-for", has_text="1 h").click()

    expect(page.locator("#drawer .facts")).to_contain_text("until")
    now = eventually(lambda: (row := get(page, f"alerts/{alert['id']}")["alert"])["ack_expires_at"] and row, 20)
    assert 3590 <= (_time(now["ack_expires_at"]) - _time(now["acked_at"])).total_seconds() <= 3610


def test_one_message_acknowledges_many_alerts_on_the_page(page: Page, floor: "Floor") -> None:
    """Twelve that should have reported did not; a colleague takes all of them, and this page follows by one message."""
    heard: list[dict[str, Any]] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: heard.extend(_publications(frame))))
    page.reload()
    page.locator(".link[data-state=live]").wait_for(timeout=20_000)
    beats = [f"heartbeats/demo/e2e-{number}" for number in range(12)]
    for beat in beats:
        _as_colleague(floor, page, "put", beat, {"timeout_s": 1, "text": "should report"})
    missing = eventually(lambda: len(found := alerts(page, source="heartbeat", handling="new")) == 12 and found, 60)
    _as_colleague(
        floor, page, "post", "alerts/actions", {"action": "acknowledge", "ids": [one["id"] for one in missing]}
    )
    page.locator("#tab-all").click()
    page.locator("#search").fill("e2e- should report")
    expect(page.locator(".rows .row[data-handling=acked]")).to_have_count(12)
    for beat in beats:
        _as_colleague(floor, page, "delete", beat)

    expect(page.locator(".rows .row[data-condition=cleared]")).to_have_count(12)
    told = [message for message in heard if message["data"].get("actor") == "colleague"]
    assert [(message["type"], message["data"]["count"]) for message in told] == [("alerts_changed", 12)]


def _as_colleague(floor: "Floor", page: Page, method: str, path: str, body: dict[str, Any] | None = None) -> None:
    """Call the API as somebody else, from elsewhere."""
    answer = getattr(page.context.request, method)(
        f"{floor.url.rstrip('/')}/api/v1/{path}",
        **({} if body is None else {"data": body}),
        headers={"Authorization": f"Bearer {floor.token(user='colleague', role='operator')}"},
    )
    assert answer.ok, answer.text()


def _publications(frame: str | bytes) -> list[dict[str, Any]]:
    pushes = [json.loads(line).get("push", {}) for line in str(frame).split("\n") if line]
    return [push["pub"]["data"] for push in pushes if push.get("channel") == names.CHANNEL_NOC and "pub" in push]


def test_a_refused_action_is_taken_back_with_the_servers_words(page: Page) -> None:
    """The page shows a change at once; when the floor says no, the row is as before and the reason is read."""
    alert = eventually(lambda: next(iter(alerts(page, handling="new")), None), 60)
    refusal = {"error": {"code": "conflict", "message": "somebody else was faster"}}
    page.route("**/api/v1/alerts/actions", lambda route: route.fulfill(status=409, json=refusal))
    show(page, alert["id"])
    page.keyboard.press("a")

    expect(page.locator("#toasts")).to_contain_text("somebody else was faster")
    expect(page.locator(f"#row-{alert['id']}")).to_have_attribute("data-handling", "new")
    page.unroute("**/api/v1/alerts/actions")


def test_a_cut_is_shown_and_what_was_missed_comes_after_it(wired_page: Page, wire: TcpProxy, floor: "Floor") -> None:
    """While the line is cut the page says how old it is; afterwards it has what happened meanwhile."""
    page = wired_page
    alert = eventually(lambda: next(iter(alerts(page, handling="new")), None), 60)
    page.locator("#tab-all").click()
    page.locator("#search").fill(alert["id"])
    row = page.locator(f"#row-{alert['id']}")
    row.wait_for()
    wire.cut()
    expect(page.locator(".link")).to_have_attribute("data-state", "stale", timeout=10_000)
    expect(page.locator("#banner")).to_contain_text("What you see is from")
    _act(floor, "acknowledge", alert["id"], page)
    expect(row).to_have_attribute("data-handling", "new")

    wire.mend()
    expect(page.locator(".link")).to_have_attribute("data-state", "live", timeout=30_000)
    expect(row).to_have_attribute("data-handling", "acked")
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#link-text")).to_contain_text("resumed")


def test_a_forced_circuit_is_seen_by_everyone_and_told_once(page: Page, floor: "Floor") -> None:
    """By the command line: each replica knows, the page says who and why, the NOC hears of it once, until the reset."""
    with SdkListener(floor.url, floor.token()) as listener:

        def told() -> list[str]:
            data = [said.data["data"] for said in listener.said if said.data.get("type") == "system_alert"]
            return [one["message"] for one in data if one["component"] == "circuit"]

        forced = floor.cli("circuits", "force", "webhook", "open", "--reason", "the receiver moves", "--json")
        try:
            assert forced.returncode == 0, forced.stderr
            assert json.loads(forced.stdout)["is_told"] is True
            expect(page.locator("#circuits")).to_have_text("webhook forced open", timeout=20_000)
            expect(page.locator("#circuits")).to_have_attribute("title", "webhook: forced by local: the receiver moves")
            eventually(lambda: "forced open" in floor.cli("circuits").stdout, 20)
            assert floor.status()["circuits"]["webhook"]["author"] == "local"
        finally:
            reset = floor.cli("circuits", "reset", "webhook", "--reason", "it moved")
        assert (reset.returncode, reset.stdout) == (0, "webhook is closed\n")
        expect(page.locator("#circuits")).to_be_hidden(timeout=20_000)
        eventually(lambda: len(told()) == 2, 20)

        assert told() == [
            "calls of webhook are refused until the circuit is reset (forced by local: the receiver moves)",
            "calls of webhook pass again (reset by local: it moved)",
        ]
    unknown = floor.cli("circuits", "reset", "web-hook", "--reason", "a slip")
    assert unknown.returncode == 2
    assert "no circuit is named 'web-hook'" in unknown.stderr


def _act(floor: "Floor", action: str, alert_id: str, page: Page) -> None:
    _as_colleague(floor, page, "post", "alerts/actions", {"action": action, "ids": [alert_id]})


def test_the_official_sdk_hears_what_the_page_hears(operator: BrowserContext, floor: "Floor") -> None:
    """From the moment both listen, page and centrifuge-python have every publication, and the same ones."""
    by_page: Heard = {}
    page = operator.new_page()
    page.on("websocket", lambda socket: _overhear(socket, by_page))
    page.goto(floor.url)
    page.locator(".link[data-state=live]").wait_for(timeout=20_000)
    with SdkListener(floor.url, floor.token(user="sdk")) as sdk:
        target = alerts(page)[0]["id"]
        for _ in range(3):
            _act(floor, "acknowledge", target, page)
            _act(floor, "unacknowledge", target, page)
        eventually(lambda: page.wait_for_timeout(500) or len(_event_ids(sdk.heard(names.CHANNEL_NOC))) >= 6, 60)
        page.wait_for_timeout(1500)
        by_sdk = sdk.heard(names.CHANNEL_NOC)
    page.close()
    both = range(max(min(by_page), min(by_sdk)), min(max(by_page), max(by_sdk)) + 1)

    assert len(_event_ids({offset: by_page[offset] for offset in both})) >= 6
    assert {offset: by_page[offset] for offset in both} == {offset: by_sdk[offset] for offset in both}


def _overhear(socket: WebSocket, heard: Heard) -> None:
    def listen(frame: str | bytes) -> None:
        for line in str(frame).split("\n"):
            push = json.loads(line).get("push", {}) if line else {}
            if push.get("channel") == names.CHANNEL_NOC and "pub" in push:
                heard[push["pub"]["offset"]] = push["pub"]["data"]

    socket.on("framereceived", listen)


def _event_ids(heard: Heard) -> set[str]:
    return {message["data"]["event_id"] for message in heard.values() if "event_id" in message["data"]}


def test_a_viewer_is_told_what_is_not_allowed(browser: Any, floor: "Floor") -> None:
    """Rights that are missing are said in words, and the buttons are off."""
    link = floor.cli("token", "--link", "--role", "viewer", "--tenant", "demo").stdout.strip()
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(link)
    page.locator(".rows .row").first.click(timeout=60_000)

    expect(page.locator("#drawer .drawer-why")).to_contain_text("role operator")
    expect(page.locator("#drawer .button.primary, #drawer .verdict").first).to_be_disabled()
    expect(page.locator("#train-start")).to_be_disabled()
    context.close()


def test_without_a_session_the_page_says_how_to_get_one(browser: Any, floor: "Floor") -> None:
    """A stranger sees one command and no data."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(floor.url)

    expect(page.locator("code")).to_have_text("watchfloor token --link")
    context.close()


def test_a_command_is_sent_from_the_device_and_its_state_moves(page: Page) -> None:
    """Picking a device shows whose it is; a command is queued, goes out and comes back with the device's words."""
    page.locator("#cells .cell", has_text="pump-7").click()
    card = page.locator("#device")
    expect(card.locator(".facts")).to_contain_text("Southern plants (south)")
    expect(card.locator(".facts")).to_contain_text("Samuel South (supervisor-2)")
    before = len(get(page, "commands?device=pump-7")["items"])
    card.locator("input[name=payload]").fill("identify")
    card.get_by_role("button", name="Send").click()
    expect(card.locator(".device-note")).to_contain_text("a JSON object")
    assert len(get(page, "commands?device=pump-7")["items"]) == before

    for payload, state, words in (
        ('{"do": "identify"}', "ok", "pump-7 blinks"),
        ('{"do": "fly"}', "failed", "this device can do"),
    ):
        card.locator("input[name=payload]").fill(payload)
        card.get_by_role("button", name="Send").click()
        newest = card.locator(".commands li").first
        expect(newest).to_have_attribute("data-state", state, timeout=20_000)
        expect(newest).to_contain_text(words)
        expect(newest).to_contain_text("by local")
        expect(newest.locator("code")).to_have_text(payload.replace(" ", ""))
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()


def test_a_device_that_nobody_registered_is_adopted_on_the_page(page: Page, floor: "Floor") -> None:
    """It is accepted and marked; an admin gives it a client and a supervisor, and the mark is gone."""
    entry = f"{floor.url.rstrip('/')}/api/v1/directory/devices/demo/rogue-agent-key-hold"
    headers = {"Authorization": f"Bearer {floor.token(user='colleague')}"}
    before = page.context.request.get(entry, headers=headers).json()
    assert page.context.request.delete(entry, headers=headers).ok
    path = "directory/devices?known=false"
    eventually(lambda: [one for one in get(page, path)["items"] if one["id"] == before["id"]], 30)
    card = page.locator("#device")
    page.locator("#cells .cell", has_text=before["id"]).click(timeout=20_000)
    expect(card.locator(".device-known")).to_have_text("not in the directory")
    card.get_by_role("button", name="Adopt").click()
    card.locator("input[name=client]").fill("nowhere")
    card.locator("button[type=submit]", has_text="Adopt").click()
    expect(page.locator("#toasts")).to_contain_text("there is no client demo/nowhere")
    for name in ("client", "site", "supervisor", "type"):
        card.locator(f"input[name={name}]").fill(before[name])
    card.locator("button[type=submit]", has_text="Adopt").click()

    expect(card.locator(".device-known")).to_have_text("")
    expect(card.locator(".facts")).to_contain_text("Northern offices (north)")
    after = get(page, f"directory/devices/demo/{before['id']}")
    assert (after["known"], after["updated_by"], after["supervisor"]) == (True, "local", "supervisor-1")


def test_a_question_of_active_learning_is_answered_by_a_key(page: Page, floor: "Floor") -> None:
    """Leased, shown with its readings, answered; the label names who said it and that the proposal was seen."""
    points = [[f"2026-01-01T00:{minute:02}:00Z", minute % 7] for minute in range(60)]
    question = Question(
        subject="window:recorded/pump/x:0:60",
        asked_by="least_confidence",
        priority=9.0,
        tenant="recorded",
        details={"device": "pump", "metric": "x", "from": points[0][0], "to": points[-1][0], "points": points},
        proposal="anomalous",
        confidence=0.58,
        model_id="anomaly_detector@v1",
    )
    queue = LabelQueue(open_engine(f"sqlite:///{floor.data_dir}/floor.db"), SystemClock())
    assert queue.together([queue.ask([question])]) == [1]

    page.keyboard.press("L")
    expect(page.locator("#labels .labels-what")).to_contain_text("pump · x · 2026-01-01 00:00:00 UTC", timeout=20_000)
    expect(page.locator("#labels .labels-plot svg")).to_be_visible()
    page.keyboard.press("m")
    expect(page.locator("#labels .labels-proposal")).to_have_text("anomaly_detector@v1 says: anomalous, 58 % sure.")
    page.keyboard.press("2")
    expect(page.locator("#labels .labels-what")).to_contain_text("1 answered. Nothing is asked")

    label = get(page, "labels")["items"][0]
    assert (label["subject"], label["value"], label["provenance"]) == (question.subject, "normal", "assisted")
