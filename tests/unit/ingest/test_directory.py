"""The device directory: what is registered, and what is merely seen."""

import pytest
from sqlalchemy import Engine

from ingest import directory_csv
from ingest.directory import Device, DeviceDirectory, DeviceEntry
from ingest.directory_entry import Kind
from ingest.recorded import series_names
from ingest.simulate import DIRECTORY_CSV


@pytest.fixture
def directory(sql: Engine) -> DeviceDirectory:
    return DeviceDirectory(sql)


def test_a_strange_device_is_accepted_and_marked(directory: DeviceDirectory) -> None:
    """Nobody registered it, so it is not known, but it is there."""
    directory.saw({("acme", "pump-7"): 5.0})

    assert directory.get("acme", "pump-7") == Device("acme", "pump-7", None, None, None, 5.0, 5.0, None, False)


def test_seeing_a_registered_device_keeps_its_entry(directory: DeviceDirectory) -> None:
    """Sending changes the times and nothing else; the first time stays the first."""
    directory.register([DeviceEntry("acme", "pump-7", "north", "plant-2", "sam")])
    directory.saw({("acme", "pump-7"): 5.0})
    directory.saw({("acme", "pump-7"): 9.0})

    assert directory.get("acme", "pump-7") == Device("acme", "pump-7", "north", "plant-2", "sam", 5.0, 9.0, None, True)


def test_registering_a_device_that_was_seen_makes_it_known(directory: DeviceDirectory) -> None:
    """Its times and its presence stay."""
    directory.saw({("acme", "pump-7"): 5.0})
    directory.set_online({("acme", "pump-7"): True})
    directory.register([DeviceEntry("acme", "pump-7", supervisor_id="sam")])

    assert directory.get("acme", "pump-7") == Device("acme", "pump-7", None, None, "sam", 5.0, 5.0, True, True)


def test_presence_follows_the_last_word(directory: DeviceDirectory) -> None:
    """A birth and a last will are counted, also of a device that never sent a reading."""
    directory.set_online({("acme", "a"): True, ("acme", "b"): True, ("beta", "a"): False})
    assert directory.count_online() == 2

    directory.set_online({("acme", "a"): False})
    assert directory.count_online() == 1
    assert directory.get("acme", "a").online is False  # type: ignore[union-attr]


def test_the_list_is_per_tenant(directory: DeviceDirectory) -> None:
    """Another tenant's devices are not in it."""
    directory.saw({("acme", "b"): 1.0, ("acme", "a"): 1.0, ("beta", "a"): 1.0})

    assert [device.device for device in directory.list("acme")] == ["a", "b"]
    assert len(directory.list()) == 3


def test_the_demo_directory_names_every_simulated_device() -> None:
    """Each recorded series has a device with a supervisor, so its alerts reach somebody."""
    sheet = directory_csv.read(DIRECTORY_CSV.read_bytes())
    entries = {entry.id: entry for entry in sheet.entries.values() if entry.kind is Kind.DEVICE}

    assert sheet.problems == ()
    assert set(entries) == {name.replace("_", "-") for name in series_names()} | {"door-3", "pump-7"}
    assert all(entry.supervisor and entry.client and entry.tenant == "demo" for entry in entries.values())


def test_strangers_beyond_the_bound_are_not_listed(sql: Engine) -> None:
    """Neither by what they send nor by what they announce; those that are listed, and registered ones, go on."""
    directory = DeviceDirectory(sql, max_unknown=2)
    directory.register([DeviceEntry("acme", "known")])
    assert directory.saw({("acme", name): 1.0 for name in ("a", "known")}) == 0
    assert directory.saw({("acme", name): 2.0 for name in ("a", "b", "c", "d", "known")}) == 2
    assert directory.set_online({("acme", "d"): True, ("acme", "a"): True}) == 1

    assert [(device.device, device.last_seen_at) for device in directory.list()] == [
        ("a", 2.0), ("b", 2.0), ("known", 2.0)
    ]  # fmt: skip
    directory.register([DeviceEntry("acme", "a")])
    assert directory.saw({("acme", "c"): 3.0}) == 0
