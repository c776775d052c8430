"""The directory over HTTP: read by its tenant, written by its admins, and no way into another one."""

import itertools
from typing import Any

import pytest

from ingest import directory_csv, directory_import
from ingest.directory import DeviceDirectory
from ingest.directory_store import DirectoryStore
from serve_apps.errors import AuthenticationError
from tests.fakes_api import SECRET, ApiFloor, issue_token

DIRECTORY = "/api/v1/directory"
FILE = b"""kind,id,tenant,name,role,client,site,supervisor
tenant,acme,,Acme Water,,,,
tenant,beta,,,,,,
client,north,acme,Northern Works,,,,
client,west,beta,,,,,
user,ann,acme,Ann,admin,,,
user,bea,beta,Bea,viewer,,,
user,root,,,admin,,,
device,pump-7,acme,,,north,plant 2,ann
device,pump-7,beta,,,,,bea
"""


@pytest.fixture(autouse=True)
def entries(api: ApiFloor) -> None:
    report = directory_import.load(api.engine, directory_csv.read(FILE), "test", 1.0)
    assert not report.problems
    DeviceDirectory(api.engine).saw({("acme", "stranger"): 5.0})


async def test_a_device_shows_whose_it_is(api: ApiFloor) -> None:
    """With the names of its client and its supervisor; lists are searched and paged."""
    async with api.caller("viewer", tenant="acme") as caller:
        device = (await caller.get(f"{DIRECTORY}/devices/acme/pump-7")).json()
        first = (await caller.get(f"{DIRECTORY}/devices?limit=1")).json()
        rest = (await caller.get(f"{DIRECTORY}/devices?limit=1&cursor={first['next_cursor']}")).json()
        found = (await caller.get(f"{DIRECTORY}/devices?q=PLANT")).json()["items"]
        strangers = (await caller.get(f"{DIRECTORY}/devices?known=false")).json()["items"]
        wrong = await caller.get(f"{DIRECTORY}/devices?cursor=nonsense")

    assert {name: device[name] for name in ("site", "client_name", "supervisor_name", "known", "updated_by")} == {
        "site": "plant 2",
        "client_name": "Northern Works",
        "supervisor_name": "Ann",
        "known": True,
        "updated_by": "test",
    }
    assert [item["id"] for item in (*first["items"], *rest["items"])] == ["pump-7", "stranger"]
    assert ([item["id"] for item in found], [item["id"] for item in strangers]) == (["pump-7"], ["stranger"])
    assert wrong.status_code == 422


async def test_a_tenant_lists_its_own(api: ApiFloor) -> None:
    """Whatever it asks for."""
    kinds = ("tenants", "clients", "users", "devices")
    async with api.caller("admin", tenant="acme") as caller:
        for kind, query in itertools.product(kinds, ("", "?tenant=beta", "?q=e", "?client=west")):
            items = (await caller.get(f"{DIRECTORY}/{kind}{query}")).json()["items"]
            assert all("beta" not in str(item) and "root" not in str(item) for item in items)
    async with api.caller("operator") as caller:
        for kind in kinds:
            assert len((await caller.get(f"{DIRECTORY}/{kind}")).json()["items"]) >= 2


WRITING = ("PUT", "PATCH")
ALL = (*WRITING, "DELETE", "GET")
FOREIGN: list[tuple[tuple[str, ...], str, dict[str, Any], set[int]]] = [
    (ALL, "tenants/beta", {"name": "x"}, {403, 404}),
    (ALL, "users/bea", {"tenant": "acme"}, {404}),
    (ALL, "users/bea", {"disabled": True}, {404}),
    (ALL, "users/root", {"disabled": True}, {404}),
    (WRITING, "users/new", {"tenant": "beta"}, {404}),
    (ALL, "clients/beta/west", {"name": "x"}, {404}),
    (ALL, "devices/beta/pump-7", {"supervisor": "ann"}, {404}),
    (WRITING, "devices/acme/pump-7", {"supervisor": "bea"}, {422}),
    (WRITING, "devices/acme/pump-7", {"client": "west"}, {422}),
    (WRITING, "devices/acme/pump-7", {"tenant": "beta"}, {422}),
    (("PATCH",), "users/ann", {"tenant": "beta"}, {404}),
    (("PATCH",), "users/ann", {"tenant": None}, {404}),
]


async def test_no_verb_reaches_another_tenant(api: ApiFloor) -> None:
    """An admin of a tenant is nobody outside it: nothing is told and nothing is changed."""
    store = DirectoryStore(api.engine, api.clock)
    before = list(store.entries())
    async with api.caller("admin", tenant="acme") as caller:
        for methods, path, body, statuses in FOREIGN:
            for method in methods:
                more: dict[str, Any] = {"json": body} if method in WRITING else {}
                answer = await caller.request(method, f"{DIRECTORY}/{path}", **more)
                assert answer.status_code in statuses, f"{method} {path} {body}: {answer.text}"
                assert "Bea" not in answer.text

    assert list(store.entries()) == before


async def test_a_stranger_is_adopted_field_by_field(api: ApiFloor) -> None:
    """By its tenant's admin, and by nobody below; the entry carries who did it."""
    path = f"{DIRECTORY}/devices/acme/stranger"
    async with api.caller("engineer", tenant="acme") as caller:
        assert (await caller.patch(path, json={"client": "north"})).status_code == 403
    async with api.caller("admin", tenant="acme", user="ann") as caller:
        adopted = (await caller.patch(path, json={"client": "north", "supervisor": "ann"})).json()
        cleared = (await caller.patch(path, json={"client": None})).json()
        missing = await caller.patch(f"{DIRECTORY}/devices/acme/never-seen", json={"client": "north"})
        wrong = await caller.patch(path, json={"role": "admin"})
        gone = await caller.delete(path)

    assert (adopted["known"], adopted["client_name"], adopted["updated_by"]) == (True, "Northern Works", "ann")
    assert (cleared["client"], cleared["supervisor"]) == (None, "ann")
    assert (missing.status_code, wrong.status_code, gone.status_code) == (404, 422, 200)


async def test_entries_are_written_whole(api: ApiFloor) -> None:
    """What PUT does not say is empty afterwards; a user of a tenant's admin is of that tenant."""
    async with api.caller("admin", tenant="acme") as caller:
        user = (await caller.put(f"{DIRECTORY}/users/max", json={"name": "Max", "role": "viewer"})).json()
        again = (await caller.put(f"{DIRECTORY}/users/max", json={})).json()
        device = (await caller.put(f"{DIRECTORY}/devices/acme/pump-9", json={"supervisor": "max"})).json()
        used = await caller.delete(f"{DIRECTORY}/users/max")
        unknown = await caller.put(f"{DIRECTORY}/planets/max", json={})
        bad_role = await caller.put(f"{DIRECTORY}/users/max", json={"role": "boss"})

    assert (user["tenant"], user["name"], again["name"], again["role"]) == ("acme", "Max", None, None)
    assert (device["supervisor_name"], device["known"]) == (None, True)
    assert (used.status_code, unknown.status_code, bad_role.status_code) == (409, 422, 422)


async def test_a_disabled_user_is_refused_however_good_the_token(api: ApiFloor) -> None:
    """Everywhere the token is shown, and only the user of that tenant; the directory gives nobody a right."""
    told: list[tuple[str, str | None]] = []
    api.disabled.follow(lambda user, tenant: told.append((user, tenant)))
    async with api.caller("admin", tenant="acme", user="boss") as boss:
        await boss.patch(f"{DIRECTORY}/users/ann", json={"disabled": True})
        await boss.put(f"{DIRECTORY}/users/root-2", json={"disabled": True})
        api.disabled.refresh()
        api.disabled.refresh()
    async with (
        api.caller("viewer", tenant="acme", user="ann") as ann,
        api.caller("viewer", tenant="beta", user="ann") as namesake,
        api.caller("admin", user="root-2") as root,
    ):
        refused = await ann.get("/api/v1/config")
        assert (await namesake.get("/api/v1/config")).status_code == 200
        assert (await root.get("/api/v1/config")).status_code == 200
    assert (refused.status_code, refused.json()["error"]["message"]) == (401, "this user is disabled")
    assert sorted(told) == [("ann", "acme"), ("root-2", "acme")]
    token = issue_token(SECRET, sub="ann", tenant="acme", roles=["viewer"], ttl_s=60)
    with pytest.raises(AuthenticationError, match="disabled"):
        api.app.state.deps.auth.from_token(token)
    async with api.caller("admin", tenant="acme", user="boss") as boss:
        await boss.patch(f"{DIRECTORY}/users/ann", json={"disabled": False})
        api.disabled.refresh()
        # The directory says admin; the token says viewer, and that is what counts.
        async with api.caller("viewer", tenant="acme", user="ann") as ann:
            assert (await ann.put(f"{DIRECTORY}/clients/acme/c", json={})).status_code == 403
