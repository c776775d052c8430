"""When circuits open and for how long: the settings, and the table of services that differ.

Two kinds of service stand in the table. Services *outside* the floor (the broker as commands
see it, webhooks, an Alertmanager) follow the operator's settings, which are the seed's: 5
failures in a row, 300 s; their state is the floor's. *Stores* (Valkey, SQL) are what the
floor cannot do without: their circuits only spare everybody the wait for a time-out, so they
probe again after a second, and each process judges for itself -- the store that would carry
the word is the one that is away. Invariant: a refusal by a store's circuit is an outage of
that store to its caller, who keeps what it has and offers it again; nothing is dropped for it.
"""

import dataclasses
from dataclasses import dataclass

UNSHARED = frozenset({"valkey", "sql"})
"""Stores: no process tells another what it thinks of them."""
OUTSIDE = frozenset({"mqtt_broker", "webhook", "alertmanager"})

STORE_FAILURES = 3
STORE_WINDOW_S = 30.0
STORE_OPEN_S = 1.0
STORE_PERMIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a circuit opens, and for how long; of services outside the floor."""

    failure_threshold: int = 5
    """Consecutive counted failures that open a circuit; 0: only the failure rate does."""
    window_s: float = 300.0
    """The failures, and the calls of the failure rate, must lie within this time, in seconds."""
    failure_rate: float = 0.0
    """Share of the window's calls whose failure opens a circuit as well, up to 1; 0: not looked at."""
    minimum_calls: int = 20
    """Calls in the window below which the failure rate says nothing."""
    open_s: float = 300.0
    """How long an open circuit refuses before it lets one probe through, in seconds."""
    open_growth: float = 1.0
    """Factor on ``open_s`` after each failed probe; 1 keeps it fixed."""
    open_max_s: float = 3600.0
    """Upper bound of the grown time, in seconds."""
    permit_s: float = 30.0
    """When a probe that gave no answer is given up and the next call may probe, in seconds."""
    sync_interval_s: float = 1.0
    """How often a process reads the states that the other processes share, in seconds."""

    def __post_init__(self) -> None:
        for name in ("window_s", "open_s", "open_max_s", "permit_s", "sync_interval_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.failure_threshold < 0 or self.minimum_calls < 1:
            raise ValueError(
                f"failure_threshold must not be negative and minimum_calls at least 1, "
                f"got {self.failure_threshold} and {self.minimum_calls}"
            )
        if not 0 <= self.failure_rate <= 1:
            raise ValueError(f"failure_rate must be in [0, 1], got {self.failure_rate}")
        if self.failure_threshold == 0 and self.failure_rate == 0:
            raise ValueError("failure_threshold and failure_rate are both 0: no circuit would ever open")
        if self.open_growth < 1:
            raise ValueError(f"open_growth must be at least 1, got {self.open_growth}")


def kind_of(service: str) -> str:
    """Return the part of a service's name that the table and the metrics know: ``webhook`` of ``webhook.erp``."""
    head = service.partition(".")[0]
    return head if head in UNSHARED | OUTSIDE else service


def settings_of(service: str, defaults: BreakerSettings) -> BreakerSettings:
    """Return the settings of one service's circuit."""
    if kind_of(service) not in UNSHARED:
        return defaults
    return dataclasses.replace(
        defaults,
        failure_threshold=STORE_FAILURES,
        window_s=STORE_WINDOW_S,
        failure_rate=0.0,
        open_s=STORE_OPEN_S,
        open_growth=1.0,
        permit_s=STORE_PERMIT_S,
    )


def is_shared(service: str) -> bool:
    """Tell whether all processes of the floor keep this service's circuit in the same state."""
    return kind_of(service) not in UNSHARED
