"""Figures of a report against cases that were worked out by hand."""

import math

import numpy as np
import pytest

from training.evaluation.anomaly_metrics import (
    bootstrap_ratio,
    count_interval,
    event_delays,
    precision_recall,
    reliability,
    share_interval,
)
from training.evaluation.figures import (
    FigureSettings,
    OperatingPoint,
    Part,
    afford,
    compare,
    device_days,
    look,
    operating_curve,
    take_figures,
)

SETTINGS = FigureSettings(rate=0.01, false_per_day=1.0, quiet=5)
DAY = 1440


def part(key: str, readings: int, events: list[tuple[int, int]], strange: dict[int, float]) -> Part:
    """One reading a minute, all of them ordinary (p = 0.5) but the ``strange`` ones, given by -log10 p."""
    rarity = np.full(readings, -math.log10(0.5))
    for place, value in strange.items():
        rarity[place] = value
    labels = np.zeros(readings, dtype=bool)
    for first, last in events:
        labels[first : last + 1] = True
    return Part(key, 60.0 * np.arange(readings), labels, rarity, 10.0**-rarity)


# Two days of two devices. The pump: an event found after 2 minutes, one that only a lower threshold finds, a
# false alarm. The fan: an event found at once, two false alarms, one of them twice within quiet.
PUMP = part("acme/pump/bar", 2 * DAY, [(100, 119), (2000, 2009)], {102: 3.0, 2005: 1.8, 700: 2.5})
FAN = part("acme/fan/rpm", 2 * DAY, [(500, 509)], {500: 4.0, 900: 3.5, 903: 3.2, 1500: 2.1})


def test_what_people_see_at_one_threshold() -> None:
    """At -log10 p of 2: alarms begin after quiet, an event is found by an alarm inside."""
    pump, fan = (look(one, 2.0, quiet=5) for one in (PUMP, FAN))

    assert (pump.alerts, pump.delays, pump.found, pump.false_alarms) == ((102, 700), (120.0, None), 1, 1)
    assert (fan.alerts, fan.delays, fan.found, fan.false_alarms) == ((500, 900, 1500), (0.0,), 1, 2)


def test_figures_at_the_nominal_rate_and_at_a_price() -> None:
    """Threshold 2 finds 2 of 3 events with 3 false alarms in 4 device-days less two minutes; 1 a day buys the third."""
    found = take_figures([PUMP, FAN], SETTINGS, {"device": lambda key: key.split("/")[1]})
    figures = found.figures
    days = 2 * (2 * DAY - 1) / DAY

    assert device_days([PUMP, FAN]) == pytest.approx(days)
    assert figures["event_recall"].value == pytest.approx(2 / 3)
    assert figures["false_per_device_day"].value == pytest.approx(3 / days)
    assert (figures["delay_s"].value, figures["delay_s"].n) == (60.0, 2)
    assert figures["event_recall_at_price"].value == 1.0
    assert figures["false_per_device_day_at_price"].value == pytest.approx(3 / days)
    assert figures["delay_at_price_s"].value == 120.0  # the median of 0, 120 and 300
    # Of 5760 readings 40 are labelled; 4 of the others are at or above 2.
    assert figures["alarming_share"].value == pytest.approx(4 / (4 * DAY - 40))
    assert {row["name"]: row["event_recall"]["value"] for row in found.slices["device"]} == {"fan": 1.0, "pump": 0.5}
    assert [(row["key"], row["found"], row["false_alarms"], row["delay_s"]) for row in found.series] == [
        ("acme/pump/bar", 1, 1, 120.0),
        ("acme/fan/rpm", 1, 2, 0.0),
    ]
    assert set(found.vus) == {"acme/pump/bar", "acme/fan/rpm"}


def test_the_curve_goes_from_nothing_to_the_price_of_everything() -> None:
    """Every threshold once, the highest first: found events and false alarms per device and day."""
    curve = operating_curve([PUMP, FAN], quiet=5)
    days = device_days([PUMP, FAN])

    assert [(point.threshold, point.recall * 3, point.false_per_day * days) for point in curve] == [
        pytest.approx(row)
        for row in (
            (4.0, 1, 0), (3.5, 1, 1), (3.2, 1, 1), (3.0, 2, 1), (2.5, 2, 2), (2.1, 2, 3), (1.8, 3, 3),
        )
    ]  # fmt: skip
    assert afford(curve, 0.3).threshold == pytest.approx(3.0)
    assert afford(curve, 0.0).threshold == pytest.approx(4.0)
    assert afford([], 1.0) == OperatingPoint(math.inf, 0.0, 0.0)


def test_channels_of_one_device_are_watched_at_the_same_time() -> None:
    """Two channels do not make two days of one."""
    other = part("acme/pump/rpm", DAY, [], {})

    assert device_days([PUMP, other]) == pytest.approx((2 * DAY - 1) / DAY)


def test_without_events_only_false_alarms_are_told() -> None:
    quiet = part("acme/pump/bar", DAY, [], {700: 2.5})
    found = take_figures([quiet], SETTINGS, {})

    assert found.figures["event_recall"].value is None
    assert found.figures["vus_pr"].value is None
    assert found.figures["delay_s"].value is None
    assert found.figures["false_per_device_day"].value == pytest.approx(1.0, rel=1e-2)
    assert found.precision_recall == []
    assert found.series[0]["recall_interval"] is None


def test_one_series_has_intervals_of_counts_and_several_are_drawn_anew() -> None:
    one = take_figures([PUMP], SETTINGS, {}).figures
    both = take_figures([PUMP, FAN], SETTINGS, {}).figures

    assert (one["event_recall"].low, one["event_recall"].high) == share_interval(1, 2)
    assert one["vus_pr"].low is None
    assert both["vus_pr"].low is not None
    assert both["vus_pr"].value is not None
    assert both["vus_pr"].high is not None
    assert both["vus_pr"].low <= both["vus_pr"].value <= both["vus_pr"].high
    assert (both["event_recall"].low, both["event_recall"].high) == (0.5, 1.0)


def test_scorers_are_compared_series_by_series() -> None:
    found = compare({"a": 0.5, "b": 0.7, "c": 0.1}, {"a": 0.4, "b": 0.4, "x": 1.0}, seed=0)

    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high, found.n) == (pytest.approx(0.1), pytest.approx(0.3), 2)
    assert compare({}, {}, seed=0).value is None


def test_precision_and_recall_of_single_readings() -> None:
    """Ties are one threshold."""
    scores = np.array([5.0, 4.0, 4.0, 1.0, 0.0])
    labels = np.array([True, True, False, False, True])

    assert precision_recall(scores, labels) == [
        pytest.approx(point) for point in ((1 / 3, 1.0), (2 / 3, 2 / 3), (2 / 3, 0.5), (1.0, 3 / 5))
    ]
    with pytest.raises(ValueError, match="labelled reading"):
        precision_recall(scores, np.zeros(5, dtype=bool))


def test_reliability_counts_readings_outside_of_events() -> None:
    p = np.array([0.01, 0.02, 0.5, 0.9, 0.001])
    labels = np.array([False, False, False, False, True])

    assert reliability(p, labels, [0.01, 0.1, 1.0]) == [(0.01, 0.25), (0.1, 0.5), (1.0, 1.0)]
    with pytest.raises(ValueError, match="outside of the events"):
        reliability(p, np.ones(5, dtype=bool), [0.5])


def test_delays_of_each_event() -> None:
    labels = np.zeros(50, dtype=bool)
    labels[[10, 11, 12, 30, 31]] = True

    assert event_delays([31, 12, 11], labels, 2.0 * np.arange(50)) == [2.0, 2.0]
    assert event_delays([13, 29, 32], labels, np.arange(50.0)) == [None, None]
    assert event_delays([3], np.zeros(5, dtype=bool), np.arange(5.0)) == []


def test_intervals_of_few() -> None:
    """Against tables: Wilson for 1 of 10 and 0 of 5, Poisson for 0 and 10 counts (Garwood's exact ones nearby)."""
    assert share_interval(1, 10) == (pytest.approx(0.0179, abs=1e-3), pytest.approx(0.4042, abs=1e-3))
    assert share_interval(0, 5) == (0.0, pytest.approx(0.4345, abs=1e-3))
    assert count_interval(0) == (0.0, pytest.approx(3.69, abs=0.1))
    assert count_interval(10) == (pytest.approx(4.80, abs=0.05), pytest.approx(18.39, abs=0.05))
    assert bootstrap_ratio([1, 1], [1, 0], seed=1) == (1.0, 2.0)


@pytest.mark.parametrize("bad", [{"rate": 0.0}, {"rate": 1.0}, {"false_per_day": 0.0}, {"quiet": -1}])
def test_settings_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be in"):
        FigureSettings(**{"rate": 0.01} | bad)  # type: ignore[arg-type]
