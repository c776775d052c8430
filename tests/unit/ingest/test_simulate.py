"""The simulation's parts that need no broker: series, order of points, seeded alerts."""

import itertools
import random

import pytest
from bad_payloads import alert
from fakes_ingest import make_delivery

from ingest.alerting_devices import door_alerts, pump_alerts
from ingest.decoder import ClockTolerance
from ingest.payload import DeviceAlert
from ingest.pipeline import Pipeline
from ingest.recorded import RecordedSeries, load_series, series_names
from ingest.replay import Replay
from ingest.simulate import _points
from ingest.topics import TopicTree


def test_seven_series_ship() -> None:
    """All load, and every device name is a topic level."""
    loaded = [load_series(name) for name in series_names()]

    assert len(loaded) == 7
    assert all(len(series.points) > 1000 and "_" not in series.device for series in loaded)
    assert load_series("nyc_taxi").points[0] == ("2014-07-01T00:00:00Z", 10844.0)


@pytest.mark.parametrize("name", ["", "nope", "../nab/nyc_taxi", "windows.json"])
def test_there_is_no_other_series(name: str) -> None:
    """A name is a name, not a path."""
    with pytest.raises(ValueError, match="no recorded series"):
        load_series(name)


def test_every_series_begins_at_the_same_fraction_and_goes_round() -> None:
    """After the end comes the beginning, all of it."""
    series = RecordedSeries("s", tuple((str(number), float(number)) for number in range(4)))

    assert [value for _, value in itertools.islice(_points(series, Replay(start=0.5)), 7)] == [2, 3, 0, 1, 2, 3, 0]
    assert [value for _, value in _points(series, Replay(start=0.5, loops=False))] == [2, 3]


@pytest.mark.parametrize("wrong", [{"speed": 0.0}, {"speed": -1.0}, {"start": 1.0}, {"start": -0.1}])
def test_a_replay_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    """With the value in the text."""
    with pytest.raises(ValueError, match="got"):
        Replay(**wrong)  # type: ignore[arg-type]


def test_the_alerting_devices_are_seeded_and_start_early() -> None:
    """The same seed gives the same alerts; the first ones come within five seconds."""
    for source in (door_alerts, pump_alerts):
        first = list(itertools.islice(source(random.Random(1)), 20))

        assert first == list(itertools.islice(source(random.Random(1)), 20))
        assert first[0].at_s <= 5.0
        assert all(later.at_s > earlier.at_s for earlier, later in itertools.pairwise(first))


def test_their_alerts_are_alerts() -> None:
    """The pipeline takes every one of them."""
    pipeline = Pipeline(TopicTree("wf"), ClockTolerance())
    for source in (door_alerts, pump_alerts):
        for timed in itertools.islice(source(random.Random(2)), 30):
            judged = pipeline.judge(make_delivery(f"wf/demo/{timed.device}/alert", alert(**timed.fields)))

            assert isinstance(judged, DeviceAlert)
            assert judged.message == timed.fields["message"]
