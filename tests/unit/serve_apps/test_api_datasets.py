"""Data sets over HTTP: the list, one of them, and what a tenant sees; trainings may name them."""

from dataclasses import replace

import pytest

from tests.fakes_api import ApiFloor
from tests.unit.training.conftest import make_dataset
from training.data.catalogue import DatasetVersion
from training.data.labels import LabelledSpan, LabelSnapshot
from training.data.tabular import Readings
from training.data.versions import manifest_path
from training.datasets import DatasetShelf
from training.registry.storage import Storage
from training.settings import TrainSettings

SETTINGS = TrainSettings()
DATASETS = "/api/v1/datasets"
NOW = 1_700_000_000.0


@pytest.fixture
def shelf(api: ApiFloor) -> DatasetShelf:
    return DatasetShelf(Storage(api.settings.storage_url), api.engine, "ada")


@pytest.fixture
def versions(shelf: DatasetShelf) -> dict[str, DatasetVersion]:
    """One data set of each of two tenants, and a recording that a run froze."""
    data = make_dataset(200)
    label = LabelledSpan(
        key=data.series[0].key, from_ts=1.0, to_ts=2.0, value="anomaly", user_id="nora", provenance="manual"
    )
    labels = LabelSnapshot.of([label], are_complete=False)
    made = {}
    for number, tenant in enumerate(("demo", "acme")):
        series = tuple(replace(one, key=one.key.replace("demo", tenant)) for one in data.series)
        readings = Readings(series=series, labels=labels if tenant == "demo" else data.labels)
        made[tenant] = shelf.take_in(f"{tenant}-pumps", readings, {"format": "csv"}, SETTINGS, NOW + number)
    shelf.open("recorded:nyc_taxi", SETTINGS, NOW + 5)
    return made


async def test_versions_are_listed_newest_first(api: ApiFloor, versions: dict[str, DatasetVersion]) -> None:
    """All of them, of one name, and what was made before a time."""
    async with api.caller("operator") as caller:
        items = (await caller.get(DATASETS)).json()["items"]
        named = (await caller.get(DATASETS, params={"name": "demo-pumps"})).json()["items"]
        earlier = (await caller.get(DATASETS, params={"before": NOW + 1})).json()["items"]
        (newest,) = (await caller.get(DATASETS, params={"limit": 1})).json()["items"]

    assert [item["reference"] for item in items] == ["recorded:nyc_taxi:1", "acme-pumps:1", "demo-pumps:1"]
    assert [item["id"] for item in named] == [versions["demo"].id]
    assert [item["name"] for item in earlier] == ["demo-pumps"]
    assert newest["created_by"] == "ada"


async def test_one_version_tells_its_series_its_split_and_its_people(
    api: ApiFloor, versions: dict[str, DatasetVersion]
) -> None:
    """By name, by number, by id."""
    async with api.caller("operator") as caller:
        found = [
            (await caller.get(f"{DATASETS}/{reference}")).json()
            for reference in ("demo-pumps", "demo-pumps:1", versions["demo"].id)
        ]

    assert found[0] == found[1] == found[2]
    assert found[0]["people"] == {"nora": 1}
    assert found[0]["source"] == {"kind": "import", "format": "csv"}
    assert [one["key"] for one in found[0]["series"]] == ["demo/device-0/temperature", "demo/device-1/temperature"]
    assert found[0]["series"][0]["held_out_from"] > found[0]["series"][0]["validation_from"]


async def test_a_tenant_sees_its_own_and_the_recordings(api: ApiFloor, versions: dict[str, DatasetVersion]) -> None:
    """Others are not found, as what was never made; people of the floor are not told."""
    async with api.caller("engineer", tenant="demo") as caller:
        items = (await caller.get(DATASETS)).json()["items"]
        own = (await caller.get(f"{DATASETS}/demo-pumps")).json()
        answers = [await caller.get(f"{DATASETS}/{name}") for name in ("acme-pumps", versions["acme"].id, "none")]

    assert [item["name"] for item in items] == ["recorded:nyc_taxi", "demo-pumps"]
    assert own["num_labels"] == 1
    assert not {"people", "created_by"} & (own.keys() | items[0].keys())
    assert [answer.status_code for answer in answers] == [404] * 3
    assert "acme-pumps" not in answers[2].text


async def test_trainings_may_name_a_data_set(api: ApiFloor, versions: dict[str, DatasetVersion]) -> None:
    """Its owner's, by name or number; another tenant's is as good as none."""

    async def start(tenant: str | None, dataset: str) -> int:
        body = {"task": "train_model", "arguments": {"dataset_id": dataset}}
        async with api.caller("engineer", tenant=tenant) as caller:
            return (await caller.post("/api/v1/runs", json=body)).status_code

    assert await start(None, "acme-pumps:1") == 201
    assert await start("demo", "demo-pumps") == 201
    assert await start("demo", "recorded:nyc_taxi:1") == 201
    assert await start("demo", "acme-pumps") == 422
    assert await start("demo", versions["acme"].id) == 422
    assert await start(None, "no-such") == 422
    assert await start(None, "a\0b") == 422


async def test_a_harmed_version_is_a_conflict_and_a_bad_reference_a_mistake(
    api: ApiFloor, shelf: DatasetShelf, versions: dict[str, DatasetVersion]
) -> None:
    shelf.storage.write(manifest_path(versions["demo"].id), b"{}")
    async with api.caller("operator") as caller:
        harmed = await caller.get(f"{DATASETS}/demo-pumps")
        bad = [await caller.get(f"{DATASETS}{path}") for path in ("/a%20b", "/%2e%2e%2fx", "?before=-1", "?name=%00")]

    assert harmed.status_code == 409
    assert "SHA-256 differs" in harmed.json()["error"]["message"]
    assert all(answer.status_code in (404, 422) for answer in bad)
