"""The floor's sign of life, sent to a real HTTP server on loopback."""

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import Engine

from ingest.alerts.engine import AlertEngine
from ingest.alerts.relay import Relay
from ingest.alerts.settings import AlertSettings
from ingest.alerts.watchdog_client import Watchdog
from tests.fakes_alerts import START_S, FakeClock, device_alert


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers with ``status``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[Any] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/v2/alerts"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_it_is_sent_at_its_pace_and_ends_by_itself(sql: Engine, receiver: Receiver) -> None:
    """In Alertmanager's form, for three paces."""
    watchdog = Watchdog(AlertSettings(watchdog_url=receiver.url), sql)
    sent = [watchdog.step(START_S + at) for at in (0, 30, 60)]
    (alert,) = receiver.heard[0]

    assert sent == [True, False, True]
    assert alert["labels"]["alertname"] == "Watchdog"
    begins, ends = (datetime.fromisoformat(alert[name]) for name in ("startsAt", "endsAt"))
    assert (ends - begins).total_seconds() == 180


def test_it_is_silent_while_people_are_not_told(
    sql: Engine, alert_engine: AlertEngine, relay: Relay, receiver: Receiver, clock: FakeClock
) -> None:
    """An event that waits in the table is what somebody else must notice."""
    watchdog = Watchdog(AlertSettings(watchdog_url=receiver.url, watchdog_s=1), sql)
    alert_engine.raise_device_alerts([device_alert(1)])
    sent = [watchdog.step(START_S + 10), watchdog.step(START_S + 60)]
    relay.publish_pending()
    sent.append(watchdog.step(START_S + 70))

    assert sent == [True, False, True]
    assert len(receiver.heard) == 2


def test_a_receiver_that_is_away_or_refuses_stops_nothing(sql: Engine, receiver: Receiver) -> None:
    """It is tried again at the next pace; without an address nothing is sent."""
    receiver.status = 500
    watchdog = Watchdog(AlertSettings(watchdog_url=receiver.url, watchdog_s=1), sql)
    refused = watchdog.step(START_S)
    receiver.status = 200

    assert (refused, watchdog.step(START_S + 1)) == (False, True)
    assert Watchdog(AlertSettings(watchdog_url="http://127.0.0.1:1/"), sql).step(START_S) is False
    assert Watchdog(AlertSettings(), sql).step(START_S) is False
