"""The protocol's methods answer what the HTTP API answers."""

import asyncio
import json

import pytest

from serve_apps import rpc
from serve_apps.answers import Answers, Caller
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import RPC
from serve_apps.codes import ErrorCode
from serve_apps.effects import Call
from serve_apps.frames import Rpc
from serve_apps.namespaces import NAMESPACES
from tests.fakes_api import ApiFloor
from tests.fakes_gateway import FakeTransport, LocalHub
from training.labelling.labels import Question

NORA = Identity(user_id="nora", tenant=None, roles=frozenset({Role.OPERATOR}), expires_at=2_000_000_000)


def test_every_method_has_its_role(api: ApiFloor) -> None:
    """And the table names none that is gone."""
    assert set(rpc.methods(api.app)) == set(RPC)


@pytest.mark.parametrize(("method", "path"), [("config", "/api/v1/config"), ("status", "/api/v1/status")])
async def test_a_method_answers_as_its_route(api: ApiFloor, method: str, path: str) -> None:
    """With what that caller may know."""
    async with api.caller("operator", user="nora") as caller:
        expected = (await caller.get(path)).json()

    answer = await rpc.methods(api.app)[method](Caller(NORA, (), None))

    moving = {"now", "session_ends_at"}
    assert {key: value for key, value in answer.items() if key not in moving} == {
        key: value for key, value in expected.items() if key not in moving
    }
    json.dumps(answer)


async def test_channels_come_with_their_options(api: ApiFloor) -> None:
    """Of the connection that asks."""
    answer = await rpc.methods(api.app)["channels"](Caller(NORA, ("run:a",), None))

    assert answer["run:a"]["join_leave"] is NAMESPACES["run"].join_leave  # type: ignore[index]


async def test_over_an_open_socket(api: ApiFloor) -> None:
    """From the command to its reply."""
    register = api.app.state.connections
    transport = FakeTransport()
    connection = register.open(transport, cookie_identity=NORA)
    await connection.on_text('{"id":1,"connect":{}}\n{"id":2,"rpc":{"method":"channels"}}')
    await transport.until(lambda made: len(made.lines) == 2)
    register.close(connection)
    await register.stop()

    assert set(transport.lines[1]["rpc"]["data"]) == {"user:nora", "noc:all"}


async def test_a_method_that_fails_is_its_callers_error() -> None:
    """100, and the connection goes on."""

    async def broken(_caller: Caller) -> None:
        raise KeyError("bug")

    answers = Answers(LocalHub(), {"broken": broken}, 1.0)  # type: ignore[arg-type]

    for method, code in (("broken", ErrorCode.INTERNAL), ("gone", ErrorCode.METHOD_NOT_FOUND)):
        assert await answers.to(Call(Rpc(id=1, method=method, data=None)), NORA, ()) is code


async def test_what_a_session_holds_is_free_when_its_socket_is_over(api: ApiFloor) -> None:
    """Of the session that the caller named, by whichever way it ends; bad names are refused."""
    register = api.app.state.connections
    api.labels.queue.together([api.labels.queue.ask([Question(subject="w", asked_by="margin")])])
    async with api.caller("operator", user="nora") as nora, api.caller("operator", user="olaf") as olaf:
        transport = FakeTransport()
        connection = register.open(transport, cookie_identity=NORA)
        await connection.on_text(
            '{"id":1,"connect":{}}\n{"id":2,"rpc":{"method":"hold_labels","data":{"session":"bad name"}}}\n'
            '{"id":3,"rpc":{"method":"hold_labels","data":{"session":"visit-0001"}}}'
        )
        await transport.until(lambda made: len(made.lines) == 3)
        held = (await nora.post("/api/v1/labels/lease", json={"session": "visit-0001"})).json()["items"]
        none = (await olaf.post("/api/v1/labels/lease", json={"session": "visit-0002"})).json()["items"]

        register.close(connection)
        async with asyncio.timeout(10):
            while not (  # noqa: ASYNC110  what is waited for has no event
                free := (await olaf.post("/api/v1/labels/lease", json={"session": "visit-0002"})).json()["items"]
            ):
                await asyncio.sleep(0.01)
        await register.stop()

    assert transport.lines[1]["error"]["code"] == ErrorCode.BAD_REQUEST
    assert transport.lines[2]["rpc"]["data"] == {"session": "visit-0001"}
    assert ([one["subject"] for one in held], none, [one["subject"] for one in free]) == (["w"], [], ["w"])
