"""How alerts behave: one set of figures for the floor, loaded by each process that writes alerts."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ingest.alerts.model import Severity

NEW_WEIGHT = 1.2
OLD_WEIGHT = 0.8
"""What a change weighs in flap detection when it is new, and at the end of the window."""
SUPERVISOR = "supervisor"
"""Audience of an escalation step: whoever the directory names for the device."""


class EscalationStep(NamedTuple):
    """One step of the policy of one severity."""

    level: int
    """1 for the first."""
    after_s: float
    audience: str
    """``supervisor``, ``user:<id>`` or ``group:<name>``."""


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    """When reports are one problem, when it flaps, and what happens while nobody does anything."""

    reopen_window_s: float = 600.0
    """Seconds after its end (or a device's last report) in which a problem that comes back is the same occurrence."""
    flap_window_s: float = 1800.0
    """Seconds for which a change between firing and cleared counts as flapping; 0: nothing flaps."""
    flap_high: float = 6.0
    """Weight of the changes in that window at which flapping starts; a change weighs 1.2 when new, 0.8 when old."""
    flap_low: float = 2.5
    """Weight below which it stops."""
    flap_changes: int = 21
    """Changes kept per problem."""
    ack_s: float = 28_800.0
    """How long an acknowledgement lasts if the person says nothing else, in seconds; 0: with the occurrence."""
    escalation: tuple[str, ...] = ("critical:300:supervisor", "high:900:supervisor")
    """Steps ``severity:seconds:audience``, comma-separated: who is told of an alert that nobody acknowledged for so
    long, each step once. Audiences: supervisor, user:ID, group:NAME. Several steps of a severity are its levels."""
    close_cleared_s: float = 86_400.0
    """Seconds after which an acknowledged alert that has cleared is closed by itself; 0: never."""
    close_forgotten_s: float = 7_776_000.0
    """Seconds after its last report at which an alert that nobody closes is closed by itself (90 days), so that it can
    leave the store; 0: never. One whose source still holds that the problem is there stays."""
    timer_s: float = 1.0
    """Pace at which expiries, escalations, silences and heartbeats are looked at, in seconds."""
    watchdog_url: str = ""
    """Where the floor says that it is alive: an Alertmanager's ``/api/v2/alerts`` or any address that takes a POST;
    empty: nowhere. It gets the alert ``Watchdog``, which always fires while alerts can be stored and told."""
    watchdog_s: float = 60.0
    """Pace of that, in seconds; a receiver should miss it after three times as long."""

    def __post_init__(self) -> None:
        for name in ("reopen_window_s", "flap_window_s", "ack_s", "close_cleared_s", "close_forgotten_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("timer_s", "watchdog_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.flap_low < self.flap_high:
            raise ValueError(f"flap_low must be above 0 and below flap_high, got {self.flap_low} and {self.flap_high}")
        if self.flap_changes * OLD_WEIGHT < self.flap_high:
            raise ValueError(f"{self.flap_changes} flap_changes can never weigh {self.flap_high}")
        if self.watchdog_url and not self.watchdog_url.startswith(("http://", "https://")):
            raise ValueError(f"watchdog_url must begin with http:// or https://, got {self.watchdog_url!r}")
        _ = self.policy

    @cached_property
    def policy(self) -> dict[Severity, tuple[EscalationStep, ...]]:
        """Steps of each severity, the earliest first.

        Raises:
            ValueError: a step cannot be read.
        """
        waits: dict[Severity, list[tuple[float, str]]] = {}
        for text in self.escalation:
            severity, _, rest = text.partition(":")
            seconds, _, audience = rest.partition(":")
            kind, _, name = audience.partition(":")
            if audience != SUPERVISOR and not (kind in {"user", "group"} and name):
                raise ValueError(f"escalation step {text!r} must end with supervisor, user:ID or group:NAME")
            try:
                wait = float(seconds)
                waits.setdefault(Severity(severity), []).append((wait, audience))
            except ValueError:
                raise ValueError(f"escalation step {text!r} must be severity:seconds:audience") from None
            if not 0 < wait < float("inf"):
                raise ValueError(f"escalation step {text!r} must wait a positive number of seconds")
        return {
            severity: tuple(EscalationStep(level, *step) for level, step in enumerate(sorted(steps), start=1))
            for severity, steps in waits.items()
        }
