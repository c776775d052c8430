"""The directory in SQL: entries that fit together, whole files, pages, and who may not come in."""

from dataclasses import replace

import pytest
from fakes_alerts import FakeClock
from sqlalchemy import Engine

from ingest import directory_csv, directory_import
from ingest.directory import DeviceDirectory
from ingest.directory_entry import Entry, Kind
from ingest.directory_import import Report
from ingest.directory_store import DirectoryQuery, DirectoryStore
from ingest.errors import DirectoryConflictError, DirectoryNotFoundError, DirectoryReferenceError

FILE = """kind,id,tenant,name,role,client,site,supervisor,type
tenant,acme,,Acme Water,,,,,
tenant,beta,,,,,,,
client,north,acme,Northern Works,,,,,
user,nora,acme,Nora Berg,operator,,,,
user,bea,beta,,viewer,,,,
user,root,,,admin,,,,
device,pump-7,acme,Pump 7,,north,plant 2,nora,pump
device,pump-8,acme,,,,plant_2,root,pump
device,pump-7,beta,,,,,bea,
"""


@pytest.fixture
def store(sql: Engine) -> DirectoryStore:
    return DirectoryStore(sql, FakeClock())


def load(engine: Engine, text: str, *, prune: bool = False, dry_run: bool = False) -> Report:
    return directory_import.load(engine, directory_csv.read(text.encode()), "ann", 7.0, prune=prune, dry_run=dry_run)


def ids(store: DirectoryStore, kind: Kind, **wanted: object) -> list[str]:
    return [one.entry.id for one in store.page(DirectoryQuery(kind=kind, **wanted))]  # type: ignore[arg-type]


def test_a_file_goes_in_once(sql: Engine, store: DirectoryStore) -> None:
    """A dry run says what would happen; the second time nothing does, not even a new time."""
    expected = {"tenant": 2, "client": 1, "user": 3, "device": 3}
    assert load(sql, FILE, dry_run=True).created == expected
    assert ids(store, Kind.DEVICE) == []

    assert load(sql, FILE).created == expected
    again = directory_import.load(sql, directory_csv.read(FILE.encode()), "otto", 9.0)
    assert (again.created, again.updated, again.unchanged) == ({}, {}, expected)
    changed = load(sql, FILE.replace("Pump 7", "Pump Seven"))
    assert (changed.updated, changed.unchanged["device"]) == ({"device": 1}, 2)
    found = store.get(Kind.DEVICE, ("acme", "pump-7"))
    assert (found.entry.name, found.updated_by, found.updated_at) == ("Pump Seven", "ann", 7.0)
    assert store.get(Kind.USER, (None, "nora")).updated_at == 7.0


def test_a_file_with_one_mistake_changes_nothing(sql: Engine, store: DirectoryStore) -> None:
    """The first twenty are told, the rest is counted."""
    wrong = "".join(f"device,d{number},acme,,,south,,,\n" for number in range(25))
    report = load(sql, FILE + wrong)

    assert (len(report.problems), report.num_problems) == (20, 25)
    assert str(report.problems[0]) == "row 11: there is no client acme/south"
    assert ids(store, Kind.TENANT) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        pytest.param("device,d,gamma,,,,,,", "there is no tenant gamma", id="tenant"),
        pytest.param("device,d,beta,,,north,,,", "there is no client beta/north", id="client-of-another-tenant"),
        pytest.param("device,d,acme,,,,,otto,", "there is no user acme/otto", id="supervisor"),
        pytest.param("device,d,acme,,,,,bea,", "there is no user acme/bea", id="supervisor-of-another-tenant"),
        pytest.param("client,c,gamma,,,,,,", "there is no tenant gamma", id="client-without-its-tenant"),
        pytest.param("user,u,acme,,,south,,,", "there is no client acme/south", id="client-of-a-user"),
    ],
)
def test_what_an_entry_speaks_of_must_be_there(sql: Engine, row: str, problem: str) -> None:
    """In the file or in the store; of another tenant does not count: its people would hear of these devices."""
    load(sql, FILE)
    header = FILE.partition("\n")[0]

    assert [one.text for one in load(sql, f"{header}\n{row}\n").problems] == [problem]


def test_a_user_does_not_move_to_another_tenant(sql: Engine, store: DirectoryStore) -> None:
    """Whose devices it supervises was checked against the tenant it had."""
    load(sql, FILE)
    report = load(sql, "kind,id,tenant\nuser,nora,beta\n")

    assert "belongs to tenant acme" in report.problems[0].text
    with pytest.raises(DirectoryConflictError, match="belongs to tenant acme"):
        store.put(Entry(kind=Kind.USER, id="nora", tenant="beta"), "ann")
    with pytest.raises(DirectoryConflictError, match="belongs to no tenant"):
        store.patch(Kind.USER, (None, "root"), {"tenant": "acme"}, "ann")


def test_pruning_takes_what_a_tenants_file_does_not_name(sql: Engine, store: DirectoryStore) -> None:
    """Other tenants are left alone; a device that was heard of stays, as an unknown one."""
    load(sql, FILE)
    DeviceDirectory(sql).saw({("acme", "pump-8"): 5.0})
    report = load(sql, "kind,id\ntenant,acme\n", prune=True)

    assert report.removed == {"client": 1, "user": 1, "device": 2}
    assert ids(store, Kind.DEVICE, tenant="acme", known=True) == []
    assert ids(store, Kind.DEVICE, tenant="acme", known=False) == ["pump-8"]
    assert (ids(store, Kind.USER), ids(store, Kind.DEVICE, tenant="beta")) == (["bea", "root"], ["pump-7"])
    forgotten = store.get(Kind.DEVICE, ("acme", "pump-8"))
    assert (forgotten.entry.supervisor, forgotten.entry.site, forgotten.facts["first_seen_at"]) == (None, None, 5.0)


def test_an_export_is_an_import(sql: Engine, store: DirectoryStore) -> None:
    """Of all, or of one tenant; devices that nobody registered are not in it."""
    load(sql, FILE)
    DeviceDirectory(sql).saw({("acme", "stranger"): 5.0})
    text = directory_csv.write(store.entries())
    report = load(sql, text, prune=True)

    assert (report.created, report.updated, report.removed, report.problems) == ({}, {}, {}, ())
    assert sum(report.unchanged.values()) == 9
    assert {entry.tenant or entry.id for entry in store.entries("acme")} == {"acme"}


def test_pages_are_in_order_and_searched(sql: Engine, store: DirectoryStore) -> None:
    """By tenant and id; signs of the search pattern are just signs."""
    load(sql, FILE)
    keys = []
    after = None
    while page := store.page(DirectoryQuery(kind=Kind.DEVICE, limit=1, after=after)):
        after = page[-1].entry.key
        keys.append(after)

    assert keys == [("acme", "pump-7"), ("acme", "pump-8"), ("beta", "pump-7")]
    assert ids(store, Kind.DEVICE, search="PLANT 2") == ["pump-7"]
    assert ids(store, Kind.DEVICE, search="plant_2") == ["pump-8"]
    assert ids(store, Kind.DEVICE, search="%") == []
    assert ids(store, Kind.DEVICE, client="north") == ["pump-7"]
    assert ids(store, Kind.USER, search="berg") == ["nora"]
    assert ids(store, Kind.USER, tenant="acme") == ["nora"]
    assert ids(store, Kind.TENANT, tenant="beta") == ["beta"]


def test_a_stranger_is_adopted(sql: Engine, store: DirectoryStore) -> None:
    """Seen, marked, then registered field by field; what was heard of it stays."""
    load(sql, FILE)
    DeviceDirectory(sql).saw({("acme", "new-1"): 5.0})
    store.patch(Kind.DEVICE, ("acme", "new-1"), {"client": "north", "supervisor": "nora"}, "ann")
    found = store.get(Kind.DEVICE, ("acme", "new-1"))

    assert found.facts["known"] is True
    assert (found.entry.client, found.facts["client_name"], found.facts["supervisor_name"]) == (
        "north", "Northern Works", "Nora Berg",
    )  # fmt: skip
    assert (found.facts["first_seen_at"], found.updated_by) == (5.0, "ann")
    with pytest.raises(DirectoryReferenceError, match="there is no client acme/south"):
        store.patch(Kind.DEVICE, ("acme", "new-1"), {"client": "south"}, "ann")
    with pytest.raises(DirectoryNotFoundError):
        store.patch(Kind.DEVICE, ("acme", "never-seen"), {"name": "x"}, "ann")


def test_what_others_speak_of_stays(sql: Engine, store: DirectoryStore) -> None:
    """The error says by whom; without them it goes."""
    load(sql, FILE)
    for kind, key, used in (
        (Kind.TENANT, (None, "acme"), "1 clients, 1 users, 2 devices"),
        (Kind.CLIENT, ("acme", "north"), "1 devices"),
        (Kind.USER, (None, "nora"), "1 devices"),
    ):
        with pytest.raises(DirectoryConflictError, match=used):
            store.delete(kind, key)
    store.delete(Kind.DEVICE, ("acme", "pump-7"))
    store.delete(Kind.USER, (None, "nora"))

    assert ids(store, Kind.DEVICE, tenant="acme") == ["pump-8"]
    with pytest.raises(DirectoryNotFoundError):
        store.delete(Kind.USER, (None, "nora"))


def test_an_entry_replaces_what_was(sql: Engine, store: DirectoryStore) -> None:
    """All of it; disabled users are those with the mark, with their tenant."""
    load(sql, FILE)
    nora = store.get(Kind.USER, (None, "nora")).entry
    assert store.put(replace(nora, disabled=True, name=None), "ann") is False
    assert store.put(Entry(kind=Kind.USER, id="max", tenant="acme"), "ann") is True

    assert store.get(Kind.USER, (None, "nora")).entry.name is None
    assert store.disabled_users() == {("nora", "acme")}
    with pytest.raises(DirectoryReferenceError):
        store.put(Entry(kind=Kind.CLIENT, id="c", tenant="gamma"), "ann")
