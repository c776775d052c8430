"""The device directory: what is registered, what is merely seen, and CSV files."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingest.directory import Device, DeviceDirectory, DeviceEntry, read_entries
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


def test_a_csv_is_read(tmp_path: Path) -> None:
    """Empty cells and missing columns are None; a BOM from a spreadsheet is no column name."""
    path = tmp_path / "devices.csv"
    path.write_bytes(b"\xef\xbb\xbftenant,device,site\nacme,pump-7,plant 2\nacme,pump-8,\n")

    assert read_entries(path) == [DeviceEntry("acme", "pump-7", site="plant 2"), DeviceEntry("acme", "pump-8")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("device\npump", "columns must be", id="no-tenant"),
        pytest.param("tenant,device,owner\na,b,c", "columns must be", id="unknown-column"),
        pytest.param("", "columns must be", id="empty"),
        pytest.param("tenant,device\nacme,pump 7", "row 2", id="no-topic-level"),
        pytest.param("tenant,device\nacme,a\nacme", "row 3", id="short-row"),
        pytest.param("tenant,device\nacme,a,b,c", "row 2", id="long-row"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    """Nothing of a file with an error is used."""
    path = tmp_path / "devices.csv"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ValueError, match=message):
        read_entries(path)


def test_the_demo_directory_names_every_simulated_device() -> None:
    """Each recorded series has a device with a supervisor, so its alerts reach somebody."""
    entries = {entry.device: entry for entry in read_entries(DIRECTORY_CSV)}

    assert set(entries) == {name.replace("_", "-") for name in series_names()} | {"door-3", "pump-7"}
    assert all(entry.supervisor_id and entry.client_id and entry.tenant == "demo" for entry in entries.values())
