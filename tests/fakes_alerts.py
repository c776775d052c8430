"""Twins of what alerts and detection meet outside: a clock, a hub, devices and models."""

from collections.abc import Sequence

import numpy as np

from cluster.ids import new_id
from ingest.alerts.model import Alert, Condition, Evidence, Handling, Severity, SourceKind, SuppressionKind
from ingest.alerts.silence import Matcher, Silence
from ingest.detector import Decision
from ingest.episode import Change
from ingest.payload import DeviceAlert, Reading
from ingest.scorer import Residuals, Windows
from ingest.windows import SeriesKey
from realtime.errors import HubUnavailableError
from realtime.hub_client import HubClient
from realtime.publication import Draft, StreamPosition

START_S = 1_700_000_000.0


AN_ALERT = Alert(
    id="A",
    tenant="demo",
    device_id="pump-1",
    site="Hall 3",
    fingerprint="f" * 16,
    occurrence=1,
    source_kind=SourceKind.DEVICE,
    rule="valve_stuck",
    severity=Severity.HIGH,
    condition=Condition.FIRING,
    handling=Handling.NEW,
    title="Valve stuck",
    text="",
    starts_at=START_S,
    last_seen_at=START_S,
    version=1,
    labels={"line": "4"},
)


class FakeClock:
    """A clock that stands still until a test advances it."""

    def __init__(self, now_s: float = START_S) -> None:
        self._now_s = now_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds

    def time_s(self) -> float:
        return self._now_s

    def monotonic_s(self) -> float:
        return self._now_s


class FakeHub(HubClient):
    """A hub in memory: keeps each (channel, key) once, and fails as often as it is told."""

    def __init__(self) -> None:
        self.published: dict[tuple[str, str | None], Draft] = {}
        self.calls = 0
        self.fail_next = 0
        self.confirms = True
        """False: publications are kept, and the caller is told nothing (a lost reply)."""

    def publish_sync(
        self, drafts: Sequence[Draft], timeout_s: float = 5.0, batch: str | None = None
    ) -> list[StreamPosition]:
        self.calls += 1
        if self.fail_next > 0:
            self.fail_next -= 1
            raise HubUnavailableError("publish", timeout_s, "told to fail")
        for draft in drafts:
            self.published.setdefault((draft.channel, draft.key), draft)
        if not self.confirms:
            raise HubUnavailableError("publish", timeout_s, "reply lost")
        return [StreamPosition("fake", number) for number in range(len(drafts))]

    def open_pipe(self, timeout_s: float) -> None:
        """Offer no socket: it is not on this node."""

    def on(self, channel: str) -> list[Draft]:
        return [draft for (name, _), draft in self.published.items() if name == channel]


class LastDifference:
    """A model that expects the value to stay as it was."""

    name = "last_difference"
    context = 1

    def __init__(self, version: str = "v1") -> None:
        self.version = version
        self.fails = False
        self.windows_seen = 0

    def residuals(self, windows_BW: Windows) -> Residuals:
        if self.fails:
            raise RuntimeError("weights are gone")
        self.windows_seen += len(windows_BW)
        residuals: Residuals = np.abs(windows_BW[:, -1] - windows_BW[:, -2])
        return residuals


def device_alert(seq: int | None = 1, *, ts: float = START_S, severity: str = "high", **changes: object) -> DeviceAlert:
    values: dict[str, object] = {
        "tenant": "demo",
        "device": "door-1",
        "boot_id": "boot",
        "seq": seq,
        "ts": ts,
        "alert_type": "door_forced",
        "severity": Severity(severity),
        "message": "Door forced open",
        "received_at": ts,
    }
    return DeviceAlert(**(values | changes))  # type: ignore[arg-type]


def decision(change: Change, seq: int, *, ts: float = START_S, score: float = 9.0, **changes: object) -> Decision:
    values: dict[str, object] = {
        "change": change,
        "key": SeriesKey("demo", "pump-1", "temperature"),
        "reading_key": f"{change}:demo/pump-1/temperature:boot/{seq}",
        "ts": ts,
        "recorded_at": "2013-12-16T17:25:00Z",
        "value": 20.5,
        "score": score,
        "threshold": 7.0,
        "severity": Severity.WARNING,
        "text": "lower than 99.9 % of its history",
        "count": 1,
        "model": "ar-baseline",
        "model_version": "1",
        "evidence": Evidence("temperature", ((ts - 1, 80.0, 1.0, None), (ts, 20.5, score, None)), 7.0, ts - 1, ts),
    }
    return Decision(**(values | changes))  # type: ignore[arg-type]


def a_silence(*matchers: Matcher, lasts_s: float = 3600.0, **changes: object) -> Silence:
    """Return a silence by ann; without matchers of everything on the site ``Hall 3``."""
    values: dict[str, object] = {
        "id": new_id(),
        "kind": SuppressionKind.SILENCE,
        "tenant": None,
        "matchers": matchers or (Matcher("site", ("Hall 3",)),),
        "starts_at": START_S,
        "ends_at": START_S + lasts_s,
        "comment": "rewiring",
        "created_by": "ann",
        "created_at": START_S,
        "updated_by": "ann",
        "updated_at": START_S,
    }
    return Silence(**(values | changes))  # type: ignore[arg-type]


def readings(
    values: Sequence[float], *, device: str = "pump-1", first_seq: int = 0, step_s: float = 1.0
) -> list[Reading]:
    """Return one reading per value, in order."""
    return [
        Reading(
            tenant="demo",
            device=device,
            boot_id="boot",
            seq=seq,
            ts=START_S + seq * step_s,
            values={"temperature": float(value)},
            recorded_at=None,
            received_at=START_S + seq * step_s,
        )
        for seq, value in enumerate(values, start=first_seq)
    ]
