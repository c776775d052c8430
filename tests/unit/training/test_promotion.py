"""Aliases: moved by compare-and-set, with a journal that only grows."""

import threading
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from cluster.store import read_transaction
from ingest.errors import StaleRevisionError
from ingest.live_models import PREVIOUS, read_live_model
from ingest.model_trial import TrialState, list_trials
from training.registry.gates import PromotionSettings
from training.registry.manifest import Manifest
from training.registry.promotion import champion, journal, promote
from training.runs.completion import offer


@pytest.fixture
def engine(sql: Engine) -> Engine:
    return sql


def manifest(version: str) -> Manifest:
    return Manifest(
        model_type="anomaly_detector",
        version=version,
        files={},
        config={},
        dataset={"name": "made"},
        metrics={"accuracy": 0.9},
        settings={},
        seed=0,
        run_id=f"run-{version}",
        user_id="ada",
        created_at="2026-01-01T00:00:00Z",
        libraries={},
    )


def test_the_champion_before_becomes_previous(engine: Engine) -> None:
    """And both moves stand in the journal, newest first, with who and why."""
    promote(engine, manifest("v1"), "file:///v1", reason="first", at=1.0, expected_revision=0)
    promote(engine, manifest("v2"), "file:///v2", reason="better", at=2.0, expected_revision=1)

    now = champion(engine)
    assert now is not None
    assert (now.version, now.uri, now.revision) == ("v2", "file:///v2", 2)
    with read_transaction(engine) as connection:
        before = read_live_model(connection, PREVIOUS)
    assert before is not None
    assert (before.version, before.revision) == ("v1", 1)
    told = [(entry.alias, entry.version, entry.replaced_version, entry.reason) for entry in journal(engine)]
    assert told == [
        ("previous", "v1", None, "better"),
        ("champion", "v2", "v1", "better"),
        ("champion", "v1", None, "first"),
    ]
    assert journal(engine)[1].run_id == "run-v2"
    assert journal(engine)[1].metrics == {"accuracy": 0.9}


def test_a_decision_on_an_old_champion_changes_nothing(engine: Engine) -> None:
    """Neither pointer nor journal."""
    promote(engine, manifest("v1"), "file:///v1", reason="first", at=1.0, expected_revision=0)
    for stale in (0, 2):
        with pytest.raises(StaleRevisionError):
            promote(engine, manifest("v2"), "file:///v2", reason="late", at=2.0, expected_revision=stale)

    now = champion(engine)
    assert now is not None
    assert now.version == "v1"
    assert len(journal(engine)) == 1


def test_before_the_first_promotion_there_is_no_champion(engine: Engine) -> None:
    assert champion(engine) is None
    assert journal(engine) == []


def test_of_runs_that_end_together_one_is_live_and_the_newest_other_is_tried(engine: Engine) -> None:
    """Without a champion there is nothing to be tried against; everybody else is."""
    threads = [
        threading.Thread(target=offer, args=(engine, manifest(f"v{index}"), f"file:///v{index}", PromotionSettings()))
        for index in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    first = champion(engine)
    assert first is not None
    assert first.revision == 1
    with read_transaction(engine) as connection:
        trials = list_trials(connection, 10)
    assert [trial.state for trial in trials] == [TrialState.RUNNING, TrialState.SUPERSEDED]
    assert {trial.against for trial in trials} == {first.version}
    assert {trial.version for trial in trials} | {first.version} == {"v0", "v1", "v2"}


def test_a_version_is_offered_once_however_often_its_worker_begins_again(engine: Engine) -> None:
    """Live, on trial or refused: it is told what it is, and nothing moves."""
    worse = replace(manifest("v3"), metrics={"skill_vs_ar": -0.3, "accuracy": 0.1})
    offers = [(one, f"file:///{one.version}") for one in (manifest("v1"), manifest("v2"), worse)]
    first = [offer(engine, *each, PromotionSettings()) for each in offers]
    moved = journal(engine)
    again = [offer(engine, *each, PromotionSettings()) for each in offers]

    states = [TrialState.PROMOTED, TrialState.RUNNING, TrialState.REFUSED]
    assert [one.state for one in first] == [one.state for one in again] == states
    assert [one.revision for one in again] == [1, 0, 0]
    assert journal(engine) == moved
    with read_transaction(engine) as connection:
        assert [trial.version for trial in list_trials(connection, 10)] == ["v3", "v2"]


def test_a_version_with_bad_figures_is_not_even_tried(engine: Engine) -> None:
    worse = replace(manifest("v1"), metrics={"skill_vs_ar": -0.3, "accuracy": 0.1})

    offered = offer(engine, worse, "file:///v1", PromotionSettings())

    assert offered.state is TrialState.REFUSED
    assert "30.0% larger than its closed form's" in offered.reason
    assert champion(engine) is None
    with read_transaction(engine) as connection:
        (trial,) = list_trials(connection, 10)
    assert (trial.state, trial.reason, trial.against) == (TrialState.REFUSED, offered.reason, None)


def test_the_journal_has_a_bound(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest moves leave first; what is live stays as it is."""
    monkeypatch.setattr("training.registry.promotion.KEPT_MOVES", 4)
    for number in range(5):
        promote(engine, manifest(f"v{number}"), f"file:///v{number}", reason="better", at=1.0, expected_revision=number)

    assert [entry.version for entry in journal(engine)] == ["v3", "v4", "v2", "v3"]
    assert champion(engine).version == "v4"  # type: ignore[union-attr]
