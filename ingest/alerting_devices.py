"""Small devices of the demo that raise alerts themselves: a door contact and a pump.

Pure and seeded: the same seed gives the same alerts at the same moments after the start.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MEAN_GAP_S = 25.0
"""Average time between two alerts of one device."""


@dataclass(frozen=True, slots=True)
class TimedAlert:
    """An alert and when to send it."""

    at_s: float
    """Seconds after the start."""
    device: str
    fields: dict[str, Any]
    """Of the alert payload, without ts, boot_id and seq."""


def door_alerts(rng: random.Random) -> Iterator[TimedAlert]:
    """Yield the alerts of a door that is left open, for ever; the first after two seconds."""
    at_s = 2.0
    while True:
        minutes = rng.randint(3, 30)
        fields = {
            "alert_type": "door_open",
            "severity": "critical" if minutes > 20 else "high",
            "message": f"Server room door open for {minutes} minutes",
            "value": minutes,
            "threshold": 2,
            "labels": {"door": "server-room"},
        }
        yield TimedAlert(at_s, "door-3", fields)
        at_s += 3.0 + rng.expovariate(1 / MEAN_GAP_S)


def pump_alerts(rng: random.Random) -> Iterator[TimedAlert]:
    """Yield the alerts of a pump whose pressure rises, for ever; the first after four seconds."""
    at_s = 4.0
    while True:
        pressure = round(rng.uniform(8.1, 9.9), 2)
        fields = {
            "alert_type": "pressure_high",
            "severity": "critical" if pressure > 9.5 else "warning",
            "message": f"Pressure {pressure} bar above 8.0 bar",
            "metric": "pressure_bar",
            "value": pressure,
            "threshold": 8.0,
        }
        yield TimedAlert(at_s, "pump-7", fields)
        at_s += 3.0 + rng.expovariate(1 / MEAN_GAP_S)
