"""The keeper: trials end, promotions are taken back, each once and told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from cluster.ids import new_id
from cluster.store import read_transaction, write_transaction
from ingest.alerts.tables import alerts
from ingest.live_models import CHALLENGER, PREVIOUS, read_live_model
from ingest.model_trial import Trial, TrialState, count_trial, list_trials, running_trial
from realtime.broadcast_calls import BroadcastCalls, Message
from training.registry.gates import PromotionSettings
from training.registry.keeper import ModelKeeper
from training.registry.manifest import Manifest
from training.registry.promotion import challenge, champion, journal, promote
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry

SETTINGS = PromotionSettings(trial_readings=1000, trial_s=30.0)
START = 1_700_000_000.0


class Told(BroadcastCalls):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def _broadcast(self, message: Message) -> bool:
        self.messages.append(message)
        return True

    def decisions(self) -> list[tuple[str, str]]:
        """Version and decision of each model update."""
        updates = [one.data for one in self.messages if one.message_type == "model_update"]
        return [(str(data["version"]), str(data["decision"])) for data in updates]


class Floor:
    """A registry with two versions, the first of which is champion."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.told = Told()
        self.keeper = ModelKeeper(engine, self.told, SETTINGS)
        self._registry = ModelRegistry(Storage(folder.as_uri()))
        self.one, self.two = (self._add(number) for number in (1, 2))
        promote(engine, self.one, self.uri(self.one), reason="first", at=START, expected_revision=0)

    def _add(self, number: int) -> Manifest:
        return self._registry.add(
            model_type="anomaly_detector",
            weights=bytes([number]),
            created_at_s=START + number,
            config={},
            dataset={"name": "made"},
            metrics={"accuracy": 0.9},
            settings={},
            seed=0,
            run_id=f"run-{number}",
            user_id="ada",
            libraries={},
        )

    def uri(self, manifest: Manifest) -> str:
        return self._registry.uri(manifest)

    def challenge(self, at: float = START + 10) -> str:
        trial_id = challenge(self.engine, self.two, self.uri(self.two), reason="trained", at=at)
        assert trial_id is not None
        return trial_id

    def count(self, trial_id: str, **counts: int) -> None:
        with write_transaction(self.engine) as connection:
            count_trial(connection, trial_id, **counts)

    def trials(self) -> list[Trial]:
        with read_transaction(self.engine) as connection:
            return list_trials(connection, 10)

    def champion(self) -> str:
        live = champion(self.engine)
        assert live is not None
        return live.version

    def judge(self, version: str, verdict: str, count: int, at: float) -> None:
        """People judge so many alerts of a version."""
        with write_transaction(self.engine) as connection:
            for _ in range(count):
                connection.execute(insert(alerts).values(**an_alert(version, verdict, at)))


def an_alert(version: str, verdict: str, at: float) -> dict[str, Any]:
    words = {
        "source_kind": "detector",
        "rule": "r",
        "severity": "warning",
        "condition": "cleared",
        "handling": "closed",
    }
    numbers = {"occurrence": 1, "severity_rank": 1, "count": 1, "version": 1}
    return {
        "id": (alert_id := new_id()),
        "fingerprint": alert_id[-16:],
        "tenant": "acme",
        "device_id": "pump",
        "model": "anomaly_detector",
        "model_version": version,
        "verdict": verdict,
        "verdict_at": at,
        "title": "",
        "text": "",
        "labels": {},
        "starts_at": at,
        "last_seen_at": at,
        **words,
        **numbers,
    }


@pytest.fixture
def floor(sql: Engine, tmp_path: Path) -> Floor:
    return Floor(sql, tmp_path / "storage")


def test_a_won_trial_makes_the_challenger_champion(floor: Floor) -> None:
    """Once, with the figures as the reason, and everybody hears of it."""
    trial_id = floor.challenge()
    floor.keeper.step(START + 11)
    assert floor.champion() == floor.one.version
    floor.count(trial_id, readings=1000, champion_alerts=2, challenger_alerts=1)

    for second in range(12, 15):
        floor.keeper.step(START + second)

    assert floor.champion() == floor.two.version
    (trial,) = floor.trials()
    assert (trial.state, trial.against, trial.readings) == (TrialState.PROMOTED, floor.one.version, 1000)
    assert journal(floor.engine)[1].reason == (
        "won its trial: it would have raised 1 alerts on 1000 readings where the champion raised 2"
    )
    assert floor.told.decisions() == [(floor.two.version, "promoted")]
    with read_transaction(floor.engine) as connection:
        previous = read_live_model(connection, PREVIOUS)
    assert previous is not None
    assert previous.version == floor.one.version


def test_a_lost_trial_changes_nothing_but_its_row(floor: Floor) -> None:
    trial_id = floor.challenge()
    floor.count(trial_id, readings=1000, champion_alerts=0, challenger_alerts=40)

    floor.keeper.step(START + 11)

    assert floor.champion() == floor.one.version
    (trial,) = floor.trials()
    assert trial.state is TrialState.REFUSED
    assert trial.reason.endswith("40 alerts on 1000 readings where the champion raised 0; 3 at most are let pass")


def test_another_champion_ends_the_trial(floor: Floor) -> None:
    """What it was held against is no longer what is in use."""
    floor.challenge()
    other = replace(floor.one, version="by-hand")
    promote(floor.engine, other, floor.uri(floor.one), reason="by hand", at=START + 20, expected_revision=1)

    floor.keeper.step(START + 21)

    assert floor.champion() == "by-hand"
    assert [trial.state for trial in floor.trials()] == [TrialState.SUPERSEDED]


def test_a_new_challenger_ends_the_trial_of_the_one_before(floor: Floor) -> None:
    first = floor.challenge()
    second = floor.challenge(START + 12)

    with read_transaction(floor.engine) as connection:
        running = running_trial(connection)
        alias = read_live_model(connection, CHALLENGER)
    assert running is not None
    assert running.id == second
    assert alias is not None
    assert alias.revision == 2
    assert {trial.id: trial.state for trial in floor.trials()}[first] is TrialState.SUPERSEDED


def test_a_challenger_whose_files_are_gone_is_refused(floor: Floor, tmp_path: Path) -> None:
    floor.challenge()
    for file in tmp_path.rglob("manifest.json"):
        if floor.two.version in str(file):
            file.unlink()

    floor.keeper.step(START + 60)

    (trial,) = floor.trials()
    assert trial.state is TrialState.REFUSED
    assert "manifest.json cannot be read" in trial.reason
    assert floor.champion() == floor.one.version


def test_false_alarms_take_a_promotion_back_once(floor: Floor) -> None:
    """Only verdicts since the promotion count; the version before it is champion again, and stays."""
    trial_id = floor.challenge()
    floor.count(trial_id, readings=1000, champion_alerts=2, challenger_alerts=1)
    floor.keeper.step(START + 11)
    floor.judge(floor.one.version, "true_positive", 12, START + 5)
    floor.judge(floor.one.version, "false_positive", 2, START + 5)
    floor.judge(floor.two.version, "unsure", 9, START + 20)
    floor.judge(floor.two.version, "false_positive", 4, START + 20)
    floor.keeper.step(START + 30)
    assert floor.champion() == floor.two.version, "four are too few"

    floor.judge(floor.two.version, "false_positive", 2, START + 40)
    floor.keeper.step(START + 50)

    assert floor.champion() == floor.one.version
    (trial,) = floor.trials()
    assert trial.state is TrialState.ROLLED_BACK
    assert trial.reason.startswith("6 of 6 verdicts on its alerts are false alarms, 2 of 14 were before it")
    assert floor.told.decisions()[-1] == (floor.one.version, "rolled_back")
    assert [one.data["component"] for one in floor.told.messages if one.message_type == "system_alert"] == ["models"]

    floor.judge(floor.one.version, "false_positive", 30, START + 60)
    floor.keeper.step(START + 100)
    assert floor.champion() == floor.one.version, "what was taken back does not come again by itself"


def test_a_crash_after_the_promotion_is_made_good(floor: Floor) -> None:
    floor.challenge()
    promote(floor.engine, floor.two, floor.uri(floor.two), reason="won", at=START + 20, expected_revision=1)

    floor.keeper.step(START + 21)

    assert [trial.state for trial in floor.trials()] == [TrialState.PROMOTED]
