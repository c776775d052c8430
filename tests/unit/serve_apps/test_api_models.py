"""Models over HTTP: lineage both ways, promotion and the way back, and what a tenant sees of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.store import write_transaction
from ingest.episode import Change
from ingest.model_trial import TrialState, add_trial
from tests.fakes_alerts import decision
from tests.fakes_api import ApiFloor
from tests.unit.training.conftest import make_dataset
from training.data.tabular import Readings
from training.datasets import DatasetShelf
from training.evaluation.report import FORMAT
from training.evaluation.report_files import write_report
from training.registry.manifest import Manifest
from training.registry.promotion import journal, promote
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.settings import TrainSettings

START = 1_700_000_000.0
TYPE = "anomaly_detector"


@pytest.fixture
def versions(api: ApiFloor) -> list[Manifest]:
    """Two registered versions, of which the first is champion."""
    registry = ModelRegistry(Storage(api.settings.storage_url))
    found = [
        registry.add(
            model_type=TYPE,
            weights=bytes([number]),
            created_at_s=START + number,
            config={},
            dataset={"name": "telemetry", "digest": "d" * 64},
            metrics={"accuracy": 0.9},
            settings={"epochs": 2},
            seed=7,
            run_id=f"run-{number}",
            user_id="trainer",
            libraries={},
        )
        for number in (1, 2)
    ]
    promote(api.engine, found[0], registry.uri(found[0]), reason="first", at=START, expected_revision=0)
    return found


async def test_a_promotion_and_the_way_back_name_who_and_why(api: ApiFloor, versions: list[Manifest]) -> None:
    """A decision on a champion that is no more is refused, and changes nothing."""
    one, two = versions
    body = {"model_type": TYPE, "version": two.version, "expected_revision": 1, "reason": "looks better"}
    async with api.caller("engineer", user="eve") as caller:
        promoted = await caller.post("/api/v1/models/promote", json=body)
        stale = await caller.post("/api/v1/models/promote", json=body)
        back = await caller.post("/api/v1/models/rollback", json={"expected_revision": 2, "reason": "too loud"})
        moves = (await caller.get("/api/v1/models/journal")).json()["items"]

    assert (promoted.status_code, promoted.json()["version"]) == (200, two.version)
    assert stale.status_code == 409
    assert "no longer at revision 1" in stale.json()["error"]["message"]
    assert (back.json()["version"], back.json()["revision"]) == (one.version, 3)
    champions = [(move["version"], move["user_id"], move["reason"]) for move in moves if move["alias"] == "champion"]
    assert champions == [
        (one.version, "eve", "rolled back by hand: too loud"),
        (two.version, "eve", "looks better"),
        (one.version, "trainer", "first"),
    ]


async def test_a_version_knows_where_it_comes_from_and_what_became_of_it(
    api: ApiFloor, versions: list[Manifest]
) -> None:
    """And so does an alert that names it."""
    one, two = versions
    raised = decision(Change.RAISE, 1, model=TYPE, model_version=one.version)
    (ref,) = api.alerts.raise_detector_alerts([raised])
    with write_transaction(api.engine) as connection:
        add_trial(
            connection,
            scorer=TYPE,
            version=two.version,
            uri="file:///x",
            run_id="run-2",
            user_id="trainer",
            against=one.version,
            state=TrialState.RUNNING,
            reason="trained",
            at=START,
        )
    verdict = {"action": "verdict", "ids": [ref.alert_id], "args": {"verdict": "false_positive"}}
    async with api.caller("engineer", user="eve") as caller:
        await caller.post("/api/v1/alerts/actions", json=verdict)
        model = (await caller.get(f"/api/v1/models/{TYPE}/{one.version}")).json()
        alerts_model = (await caller.get(f"/api/v1/models/of-alert/{ref.alert_id}")).json()
        challenger = (await caller.get(f"/api/v1/models/{TYPE}/{two.version}")).json()
        listed = (await caller.get("/api/v1/models")).json()

    assert model["made_by"] == {"run_id": "run-1", "user_id": "trainer"}
    assert model["made_from"]["dataset"] == {"name": "telemetry", "digest": "d" * 64}
    assert model["aliases"] == ["champion"]
    assert model["alerts"] == {"total": 1, "verdicts": {"false_positive": {"count": 1, "people": 1}}}
    assert alerts_model["model"] == model
    assert alerts_model["alert"]["verdict"] == "false_positive"
    assert [trial["state"] for trial in challenger["trials"]] == ["running"]
    assert [trial["version"] for trial in listed["trials"]] == [two.version]


async def test_a_tenant_sees_names_and_figures_and_changes_nothing(api: ApiFloor, versions: list[Manifest]) -> None:
    one, _ = versions
    body = {"model_type": TYPE, "version": one.version, "expected_revision": 1, "reason": "mine"}
    async with api.caller("engineer", tenant="demo") as caller:
        model = (await caller.get(f"/api/v1/models/{TYPE}/{one.version}")).json()
        moves = (await caller.get("/api/v1/models/journal")).json()["items"]
        promoted = await caller.post("/api/v1/models/promote", json=body)
        back = await caller.post("/api/v1/models/rollback", json={"expected_revision": 1, "reason": "mine"})

    assert set(model) == {"model_id", "model_type", "version", "created_at", "metrics", "aliases"}
    assert set(moves[0]) == {"at", "alias", "revision", "model_type", "version", "replaced_version", "metrics"}
    assert (promoted.status_code, back.status_code) == (403, 403)
    assert len(journal(api.engine)) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{TYPE}/no-such", 404),
        ("no-such/no-such", 404),
        (f"{TYPE}/..%2F..%2Fsecret", 404),
        ("of-alert/no-such", 404),
    ],
)
async def test_what_is_not_there_is_not_found(api: ApiFloor, path: str, status: int) -> None:
    async with api.caller("viewer", tenant="demo") as caller:
        assert (await caller.get(f"/api/v1/models/{path}")).status_code == status


async def test_a_version_whose_files_are_gone_cannot_be_promoted(api: ApiFloor, versions: list[Manifest]) -> None:
    folder = Path(api.settings.storage_url.removeprefix("file://")) / "models" / TYPE / versions[1].version
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    body = {"model_type": TYPE, "version": versions[1].version, "expected_revision": 1, "reason": "x"}
    async with api.caller("engineer") as caller:
        answer = await caller.post("/api/v1/models/promote", json=body)
        nowhere = await caller.post("/api/v1/models/rollback", json={"expected_revision": 1, "reason": "x"})

    assert answer.status_code == 409
    assert "is refused" in answer.json()["error"]["message"]
    assert (nowhere.status_code, nowhere.json()["error"]["message"]) == (
        409,
        "there is no version before the champion",
    )


@pytest.fixture
def judged(api: ApiFloor, versions: list[Manifest]) -> dict[str, str]:
    """Reports of the champion on a data set of each of two tenants; their ids by the tenant, acme's the newest."""
    storage = Storage(api.settings.storage_url)
    shelf = DatasetShelf(storage, api.engine, "ada")
    data = make_dataset(200)
    found = {}
    for number, tenant in enumerate(("demo", "acme")):
        series = tuple(replace(one, key=one.key.replace("demo", tenant)) for one in data.series)
        readings = Readings(series=series, labels=data.labels)
        frozen = shelf.take_in(f"{tenant}-pumps", readings, {}, TrainSettings(), START + number)
        report = {"format": FORMAT, "dataset": {"id": frozen.id, "name": frozen.name}, "created_by": "ada"}
        write_report(storage, TYPE, versions[0].version, report)
        found[tenant] = frozen.id
    return found


async def test_a_report_is_read_by_its_data_set_or_the_newest(api: ApiFloor, judged: dict[str, str]) -> None:
    """A tenant gets those on its own data; on others', and of other versions, there is none."""
    path = f"/api/v1/models/{TYPE}/versions/champion/report"
    async with api.caller("operator") as floor, api.caller("viewer", tenant="demo") as caller:
        newest = (await floor.get(path)).json()
        named = (await floor.get(path, params={"dataset": "demo-pumps:1"})).json()
        own = (await caller.get(path)).json()
        foreign = await caller.get(path, params={"dataset": judged["acme"]})
        never = await floor.get(f"/api/v1/models/{TYPE}/versions/challenger/report")

    assert (newest["dataset"]["id"], newest["created_by"]) == (judged["acme"], "ada")
    assert named["dataset"]["id"] == own["dataset"]["id"] == judged["demo"]
    assert "created_by" not in own
    assert (foreign.status_code, never.status_code) == (404, 404)
    assert judged["acme"] not in foreign.text


async def test_a_report_is_asked_for_as_a_run(api: ApiFloor, versions: list[Manifest], judged: dict[str, str]) -> None:
    """Of the version that the alias means now, once for one request id, on what the caller may see."""
    path = f"/api/v1/models/{TYPE}/versions/champion/report"
    body = {"dataset_id": "demo-pumps", "false_alarms_per_day": 0.5, "request_id": "report-me-1"}
    async with api.caller("engineer", tenant="demo", user="eve") as caller, api.caller("viewer") as viewer:
        first = await caller.post(path, json=body)
        again = await caller.post(path, json=body)
        others = [
            await caller.post(path, json={"dataset_id": "acme-pumps"}),
            await caller.post(path, json={"dataset_id": "telemetry"}),
            await caller.post(path, json={"dataset_id": "demo-pumps", "false_alarms_per_day": 0}),
            await caller.post(f"/api/v1/models/{TYPE}/versions/no-such/report", json={}),
            await viewer.post(path, json=body),
        ]

    run = first.json()
    assert (first.status_code, run["task"], run["lane"], run["user_id"]) == (
        201,
        "evaluate_model",
        "ai_processing",
        "eve",
    )
    assert run["arguments"] == {
        "model_id": f"{TYPE}@{versions[0].version}",
        "dataset_id": "demo-pumps",
        "false_alarms_per_day": 0.5,
    }
    assert again.json()["id"] == run["id"]
    assert [answer.status_code for answer in others] == [422, 403, 422, 404, 403]
