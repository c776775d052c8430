"""A listener hears everything in order, and can break nothing."""

import queue
import threading
from typing import Any

import pytest
from fakes_cluster import FakeClock

from cluster.errors import SettingsError
from cluster.lanes import LANES, get_route
from cluster.run_life import new_run
from cluster.run_listening import MAX_WAITING, RunNews, load_listener
from cluster.runs import Run, RunOrigin, RunRequest


def run(run_id: str) -> Run:
    request = RunRequest(task="train_model")
    route, lane = get_route("train_model"), LANES["ml_training"]
    return new_run(run_id, run_id, RunOrigin.API, request, route, lane, FakeClock().time_s())


class Listener:
    def __init__(self) -> None:
        self.heard: queue.Queue[str] = queue.Queue()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def on_change(self, run: dict[str, Any]) -> None:
        assert self.may_go_on.wait(10)
        self.heard.put(run["id"])
        if run["id"] == "bad":
            raise RuntimeError("the listener is broken")


def test_changes_are_heard_in_order() -> None:
    """Each as the API shows it."""
    listener = Listener()
    news = RunNews(listener)
    for run_id in ("a", "b", "c"):
        news.tell(run(run_id))

    assert [listener.heard.get(timeout=5) for _ in range(3)] == ["a", "b", "c"]


def test_a_failing_listener_hears_the_next_change() -> None:
    """Its error is logged, not raised."""
    listener = Listener()
    news = RunNews(listener)
    news.tell(run("bad"))
    news.tell(run("good"))

    assert [listener.heard.get(timeout=5) for _ in range(2)] == ["bad", "good"]


def test_a_listener_that_hangs_costs_the_oldest_news() -> None:
    """Telling never waits; the newest state of a run arrives."""
    listener = Listener()
    listener.may_go_on.clear()
    news = RunNews(listener)
    for number in range(MAX_WAITING + 100):
        news.tell(run(str(number)))
    assert 99 <= news.dropped_total <= 100  # one may be in the listener's hands

    listener.may_go_on.set()
    heard = [listener.heard.get(timeout=5) for _ in range(MAX_WAITING)]
    assert heard[-1] in {str(MAX_WAITING + 99), str(MAX_WAITING + 98)}


def test_a_listener_is_loaded_by_its_name() -> None:
    """``module:Class``; ``none`` for nobody; a wrong one says which setting is wrong."""
    assert isinstance(load_listener("queue:Queue"), queue.Queue)
    assert load_listener("none") is None
    with pytest.raises(SettingsError, match="WATCHFLOOR_RUN_QUEUE_LISTENER"):
        load_listener("cluster.names:Nobody")
