"""The baseline on the shipped series: causal from their first reading, one set of parameters.

The settings were chosen with these series in view: a guard against regressions, not a blind
figure. ``pytest -s`` prints the table.
"""

import csv
import json
import time
from datetime import datetime
from pathlib import Path

import pytest

import ingest
from ingest.detection_settings import DetectorSettings
from ingest.detector import Detector
from ingest.episode import Change
from tests.fakes_alerts import START_S, readings

NAB = Path(ingest.__file__).parent / "data" / "nab"
WINDOWS = json.loads((NAB / "windows.json").read_text(encoding="utf-8"))

# Windows that must be hit, and the most alerts outside of windows per 1000 readings.
EXPECTED = [
    pytest.param("ambient_temperature_system_failure", 2, 1.0, id="ambient_temperature"),
    pytest.param("cpu_utilization_asg_misconfiguration", 1, 0.5, id="cpu_utilization"),
    pytest.param("ec2_request_latency_system_failure", 3, 1.0, id="ec2_request_latency"),
    pytest.param("machine_temperature_system_failure", 4, 0.5, id="machine_temperature"),
    pytest.param("nyc_taxi", 4, 1.0, id="nyc_taxi"),
    pytest.param("rogue_agent_key_hold", 1, 1.5, id="rogue_agent_key_hold"),
    pytest.param("rogue_agent_key_updown", 0, 1.0, id="rogue_agent_key_updown"),
]


def read_series(name: str) -> tuple[list[float], list[int]]:
    """Return the values and, per value, the number of its labelled window (0: none)."""
    with (NAB / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    spans = [tuple(datetime.fromisoformat(end) for end in span) for span in WINDOWS[f"{name}.csv"]]
    times = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    labels = [next((number for number, (first, last) in enumerate(spans, 1) if first <= at <= last), 0) for at in times]
    return [float(row["value"]) for row in rows], labels


@pytest.mark.parametrize(("name", "hits", "false_per_1000"), EXPECTED)
def test_alerts_fall_into_the_labelled_windows(name: str, hits: int, false_per_1000: float) -> None:
    """Enough windows hit, few alerts elsewhere."""
    values, labels = read_series(name)
    detector = Detector(DetectorSettings())
    started = time.process_time()
    decisions = [
        decision
        for start in range(0, len(values), 500)
        for decision in detector.observe(readings(values[start : start + 500], first_seq=start))
    ]
    seconds = time.process_time() - started
    raised = [round(decision.ts - START_S) for decision in decisions if decision.change is Change.RAISE]
    inside = [at for at in raised if labels[at]]
    false_alarms = len(raised) - len(inside)

    print(
        f"\n{name:40s} windows {len({labels[at] for at in inside})}/{max(labels)}  false alarms {false_alarms} "
        f"({1000 * false_alarms / len(values):.2f} per 1000)  first hit {inside[0] if inside else '-'}  "
        f"{len(values) / seconds:,.0f} readings per CPU second"
    )
    assert len({labels[at] for at in inside}) >= hits
    assert 1000 * false_alarms / len(values) <= false_per_1000
