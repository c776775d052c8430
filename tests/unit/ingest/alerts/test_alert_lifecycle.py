"""The life cycle as a table, and as a machine that hypothesis tries to break."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ingest.alerts import lifecycle
from ingest.alerts.lifecycle import Change, Sighting
from ingest.alerts.model import Action, Alert, Condition, Handling, Severity, SourceKind, Verdict

WINDOW_S = 600.0


def an_alert(condition: str = "firing", handling: str = "new", **changes: object) -> Alert:
    alert = Alert(
        id="A",
        tenant="demo",
        device_id="pump-1",
        fingerprint="f" * 16,
        occurrence=1,
        source_kind=SourceKind.MODEL,
        rule="anomaly",
        severity=Severity.WARNING,
        condition=Condition(condition),
        handling=Handling(handling),
        title="Unusual temperature",
        text="",
        starts_at=100.0,
        last_seen_at=100.0,
        cleared_at=200.0 if condition == "cleared" else None,
        version=3,
    )
    return replace(alert, **changes)  # type: ignore[arg-type]


def a_sighting(at: float = 300.0, severity: str = "warning", **changes: object) -> Sighting:
    values: dict[str, object] = {"at": at, "actor": "detector", "severity": Severity(severity), "text": ""}
    return Sighting(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "handling", "severity", "action", "status"),
    [
        pytest.param("firing", "new", "warning", Action.REPEATED, "firing/new", id="again"),
        pytest.param("firing", "acked", "warning", Action.REPEATED, "firing/acked", id="again-while-acked"),
        pytest.param("firing", "acked", "high", Action.ESCALATED, "firing/new", id="worse-while-acked"),
        pytest.param("firing", "new", "high", Action.ESCALATED, "firing/new", id="worse"),
        pytest.param("firing", "new", "low", Action.REPEATED, "firing/new", id="milder-stays-as-bad"),
        pytest.param("cleared", "acked", "warning", Action.REOPENED, "firing/acked", id="back"),
        pytest.param("stale", "new", "warning", Action.REOPENED, "firing/new", id="link-is-back"),
    ],
)
def test_a_further_sighting(condition: str, handling: str, severity: str, action: Action, status: str) -> None:
    """The same occurrence goes on; only a worse problem undoes an acknowledgement."""
    change = lifecycle.seen_again(an_alert(condition, handling), a_sighting(severity=severity))

    assert (action, status) == (change.action, lifecycle.status(change.after))
    assert (change.after.version, change.after.count) == (4, 2)


def test_a_late_sighting_does_not_reopen() -> None:
    """A redelivered report from before the end says nothing about now."""
    change = lifecycle.seen_again(an_alert("cleared"), a_sighting(at=150.0))

    assert Action.REPEATED is change.action
    assert Condition.CLEARED is change.after.condition


@pytest.mark.parametrize(
    ("alert", "at", "is_over"),
    [
        pytest.param(an_alert("firing"), 1e6, False, id="a-firing-series-goes-on"),
        pytest.param(an_alert("firing", source_kind=SourceKind.DEVICE), 701.0, True, id="a-device-alert-is-a-moment"),
        pytest.param(an_alert("firing", source_kind=SourceKind.DEVICE), 699.0, False, id="device-repeats"),
        pytest.param(an_alert("cleared"), 799.0, False, id="cleared-just-now"),
        pytest.param(an_alert("cleared"), 801.0, True, id="cleared-long-ago"),
        pytest.param(an_alert("stale"), 701.0, True, id="stale-for-long"),
        pytest.param(an_alert("firing", "closed"), 101.0, True, id="closed"),
    ],
)
def test_when_an_occurrence_is_over(alert: Alert, at: float, is_over: bool) -> None:
    """Later than the window, or after people closed it, the problem is a new occurrence."""
    assert is_over == lifecycle.is_over(alert, at, WINDOW_S)


@pytest.mark.parametrize(
    ("step", "handling", "expected"),
    [
        pytest.param("acknowledged", "new", "firing/acked", id="ack"),
        pytest.param("acknowledged", "acked", None, id="ack-twice"),
        pytest.param("acknowledged", "closed", None, id="ack-closed"),
        pytest.param("unacknowledged", "acked", "firing/new", id="unack"),
        pytest.param("unacknowledged", "new", None, id="unack-new"),
        pytest.param("closed", "new", "firing/closed", id="close-new"),
        pytest.param("closed", "acked", "firing/closed", id="close-acked"),
        pytest.param("closed", "closed", None, id="close-twice"),
    ],
)
def test_what_people_do(step: str, handling: str, expected: str | None) -> None:
    """A step that changes nothing is no event."""
    change = getattr(lifecycle, step)(an_alert("firing", handling), 300.0, "ann")

    assert expected == (None if change is None else lifecycle.status(change.after))


def test_a_verdict_is_an_axis_of_its_own() -> None:
    """It needs no acknowledgement, may change, and the same one twice is no event."""
    change = lifecycle.judged(an_alert("cleared", "new"), 300.0, "ann", Verdict.FALSE_POSITIVE)

    assert change is not None
    assert lifecycle.status(change.after) == "cleared/new/false_positive"
    assert (change.after.verdict_by, change.after.verdict_at) == ("ann", 300.0)
    assert lifecycle.judged(change.after, 301.0, "bob", Verdict.FALSE_POSITIVE) is None
    assert lifecycle.judged(change.after, 301.0, "bob", Verdict.EXPECTED) is not None


class AlertLife(RuleBasedStateMachine):
    """Any order of reports and actions leaves an alert that makes sense."""

    def __init__(self) -> None:
        super().__init__()
        self.alert = an_alert(version=1)
        self.now = 1000.0

    def take(self, change: Change | None) -> None:
        self.now += 1
        if change is None:
            return
        assert change.before == self.alert
        assert change.after != self.alert
        assert change.after.version == self.alert.version + 1
        self.alert = change.after

    @rule(severity=st.sampled_from(Severity), score=st.none() | st.floats(0, 20))
    def sight(self, severity: Severity, score: float | None) -> None:
        before = self.alert
        self.take(lifecycle.seen_again(before, a_sighting(self.now, severity.value, score=score, value=1.0)))
        assert self.alert.severity.rank >= before.severity.rank
        assert self.alert.condition is Condition.FIRING

    @rule()
    def clear(self) -> None:
        self.take(lifecycle.cleared(self.alert, self.now, "detector"))
        assert self.alert.condition is Condition.CLEARED

    @rule()
    def lose_link(self) -> None:
        was_cleared = self.alert.condition is Condition.CLEARED
        self.take(lifecycle.went_stale(self.alert, self.now, "watchfloor", "link lost"))
        assert was_cleared == (self.alert.condition is Condition.CLEARED)

    @rule(step=st.sampled_from([lifecycle.acknowledged, lifecycle.unacknowledged, lifecycle.closed]))
    def act(self, step: object) -> None:
        was_closed = self.alert.handling is Handling.CLOSED
        self.take(step(self.alert, self.now, "ann"))  # type: ignore[operator]
        assert not was_closed or self.alert.handling is Handling.CLOSED

    @rule(verdict=st.sampled_from(Verdict))
    def judge(self, verdict: Verdict) -> None:
        self.take(lifecycle.judged(self.alert, self.now, "ann", verdict))
        assert self.alert.verdict is verdict

    @invariant()
    def stamps_agree_with_the_axes(self) -> None:
        alert = self.alert
        assert (alert.cleared_at is not None) == (alert.condition is Condition.CLEARED)
        assert (alert.closed_at is not None) == (alert.handling is Handling.CLOSED)
        assert alert.handling is not Handling.ACKED or alert.acked_by == "ann"
        assert alert.handling is not Handling.NEW or alert.acked_by is None
        assert alert.starts_at <= alert.last_seen_at


AlertLife.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAlertLife = AlertLife.TestCase
