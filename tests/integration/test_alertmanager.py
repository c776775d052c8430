"""A real Alertmanager is told what fires here, routes it, and learns when it is over."""

import asyncio
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from cluster.breaker import Breaker
from cluster.circuit import BreakerSettings
from cluster.clock import SystemClock
from cluster.ports import free_port
from ingest.alerts.engine import AlertEngine
from ingest.alerts.silence import Matcher
from ingest.alerts.silence_store import SilenceStore
from ingest.alerts.store import AlertStore
from ingest.notify.alertmanager import Alertmanager
from ingest.notify.notifier import Notifier
from ingest.notify.settings import AlertmanagerSettings, WebhookSettings
from tests.fakes_alerts import a_silence, device_alert
from tests.prometheus import alertmanager, until
from tests.receiver import FAILS, OK, Receiver, receiver

CONFIG = """\
route: {{receiver: us, group_by: ["..."], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}
receivers:
  - name: us
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


class Floor:
    """A table and who writes to it, by the clock of the machine: the Alertmanager has no other."""

    def __init__(self, sql: Engine) -> None:
        self.sql = sql
        self.clock = SystemClock()
        self.alerts = AlertEngine(self.sql, self.clock)
        self.store = AlertStore(self.sql, self.clock)
        self.seq = 0

    def alert(self, device: str) -> str:
        self.seq += 1
        made = device_alert(self.seq, device=device, ts=self.clock.time_s(), metric="force", value=3.5)
        (ref,) = self.alerts.raise_device_alerts([made])
        return ref.alert_id

    def close(self, alert_id: str) -> None:
        self.seq += 1
        self.store.act([alert_id], "close", "ann", f"request-{self.seq}")

    def notifier(self, url: str, **settings: Any) -> Notifier:
        given: dict[str, Any] = {"url": url, "resend_s": 1.0, "floor_url": "http://floor"}
        return Notifier(
            self.sql,
            Breaker(BreakerSettings()),
            WebhookSettings(),
            AlertmanagerSettings(**(given | settings)),
            pace_s=0.1,
        )


@pytest.fixture
def floor(sql: Engine) -> Floor:
    return Floor(sql)


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


@pytest.mark.prometheus
async def test_alertmanager_routes_what_fires_and_what_is_over(floor: Floor, server: Receiver, tmp_path: Path) -> None:
    """From the table over a real Alertmanager to whoever it pages; a silenced alert never gets there."""
    until_s = floor.clock.time_s()
    silence = a_silence(
        Matcher("device", ("door-2",)), starts_at=until_s - 5, ends_at=until_s + 600, created_at=until_s
    )
    SilenceStore(floor.sql, floor.clock).create(silence, "silence-request")
    async with alertmanager(tmp_path, CONFIG.format(url=server.url)) as url:
        notifier = floor.notifier(url)
        notifier.start()
        try:
            first = floor.alert("door-1")
            floor.alert("door-2")
            await until(lambda: len(server.got) == 1, "it is paged")
            async with httpx.AsyncClient() as client:
                (known,) = (await client.get(f"{url}/api/v2/alerts")).json()
            assert known["labels"] == {
                "alertname": "door_forced", "device": "door-1", "metric": "force", "severity": "high",
                "source": "device", "tenant": "demo",
            }  # fmt: skip
            assert known["annotations"]["summary"] == "Door forced"
            assert known["annotations"]["value"] == "3.5"
            assert known["generatorURL"] == f"http://floor/?alert={first}"
            ends = datetime.datetime.fromisoformat(known["endsAt"]).timestamp()
            assert ends > floor.clock.time_s()  # and it is told again before that
            assert notifier.status()["alertmanager"]["problem"] is None
            await until(lambda: notifier.status()["alertmanager"]["firing"] == 1, "all is told anew")

            floor.close(first)
            await until(lambda: len(server.got) == 2, "its end is told")
        finally:
            await asyncio.to_thread(notifier.close)

    bodies = [got.json() for got in server.got]
    assert [body["status"] for body in bodies] == ["firing", "resolved"]
    assert {alert["labels"]["device"] for body in bodies for alert in body["alerts"]} == {"door-1"}


async def test_an_outage_is_made_up_for_from_the_table(floor: Floor, server: Receiver) -> None:
    """What fired and ended while it was away is told when it is back, in one request."""
    server.answer = FAILS
    target = Alertmanager(
        AlertmanagerSettings(url=server.url, resend_s=60.0), floor.sql, floor.clock, Breaker(BreakerSettings())
    )
    ended = floor.alert("door-1")
    floor.alert("door-2")
    await target.step()
    assert target.problem
    floor.close(ended)
    server.answer = OK
    target._paused_until = 0.0
    assert await target.step() == 2
    assert target.problem is None
    assert await target.step() == 0  # nothing changed, and the minute is not over
    await target.close()

    now = floor.clock.time_s()
    told = {one["labels"]["device"]: one for one in server.got[-1].json()}
    ends = {name: datetime.datetime.fromisoformat(one["endsAt"]).timestamp() for name, one in told.items()}
    assert ends["door-1"] <= now < ends["door-2"] <= now + 241
    assert server.got[-1].path == "/hook/api/v2/alerts"


async def test_what_changes_is_told_at_once(floor: Floor, server: Receiver) -> None:
    """Without waiting for the minute; a note on an old alert is no news."""
    target = Alertmanager(AlertmanagerSettings(url=server.url), floor.sql, floor.clock, Breaker(BreakerSettings()))
    assert await target.step() == 0
    floor.alert("door-1")
    assert await target.step() == 1
    floor.alerts.mark_stale("demo", "door-1", "offline")
    assert await target.step() == 1
    await target.close()

    last = server.got[-1].json()[0]
    assert last["annotations"]["state"].startswith("stale")
    assert datetime.datetime.fromisoformat(last["endsAt"]).timestamp() > floor.clock.time_s()


async def test_a_token_is_shown_and_a_missing_one_said(floor: Floor, server: Receiver, tmp_path: Path) -> None:
    """A notifier whose token cannot be read leaves the target out and says so."""
    path = tmp_path / "token"
    path.write_text("abc\n")
    settings = AlertmanagerSettings(url=server.url, token_file=str(path))
    target = Alertmanager(settings, floor.sql, floor.clock, Breaker(BreakerSettings()))
    floor.alert("door-1")
    await target.step()
    await target.close()
    assert server.got[-1].headers["authorization"] == "Bearer abc"

    broken = floor.notifier(f"http://127.0.0.1:{free_port()}", token_file=str(tmp_path / "none"))
    broken.start()
    assert "No such file" in broken.status()["alertmanager"]["problem"]
    broken.close()
