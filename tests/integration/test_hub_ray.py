"""The hub as an actor of a real Ray, with its journal in a real Valkey."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from contract.hub_contract import HubContract
from contract.journal_contract import everything_in

from cluster import names
from cluster.embedded import Credentials, EmbeddedService, EmbeddedSettings, redis_service
from cluster.ports import free_port
from cluster.process import Child
from cluster.settings import Settings
from realtime.broadcaster import Broadcaster
from realtime.errors import HubNotFoundError, HubUnavailableError
from realtime.hub_actor import get_or_create_hub
from realtime.hub_client import HubClient
from realtime.publication import Draft, Publication, StreamPosition
from realtime.replies import Cursor, JournalHealth
from realtime.settings import BroadcastSettings
from realtime.transport import open_transport

pytestmark = [pytest.mark.ray, pytest.mark.redis, pytest.mark.timeout(180)]

# A program of its own that joins the cluster and broadcasts.
PROGRAM = """
    import sys
    import ray
    from realtime import get_broadcaster

    ray.init(address=sys.argv[1], log_to_driver=False)
    broadcaster = get_broadcaster()
    for number in range(500):
        assert broadcaster.broadcast_to_user(7, "task_complete", {"n": number})
    assert broadcaster.flush(20), broadcaster.health()
    print(broadcaster.health())
"""


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    ray.init(
        address="local",
        namespace=names.NAMESPACE,
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(
        redis_url=redis_url, data_dir=str(tmp_path), channel_keys=f"test:{base64.b64encode(bytes(32)).decode()}"
    )


@pytest.fixture
def hub(settings: Settings) -> Iterator[HubClient]:
    client = get_or_create_hub(settings)
    yield client
    end_for_good()


def end_for_good() -> None:
    ray.kill(ray.get_actor(names.HUB, namespace=names.NAMESPACE), no_restart=True)
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        try:
            HubClient.connect()
        except HubNotFoundError:
            return
        time.sleep(0.05)
    raise AssertionError("the hub's name was not given back")


def kill_process() -> None:
    handle: Any = ray.get_actor(names.HUB, namespace=names.NAMESPACE)
    os.kill(ray.get(handle.__ray_call__.remote(lambda _self: os.getpid()), timeout=20), signal.SIGKILL)


class OnlyActor:
    """The hub's handle as a process sees it that the hub's socket is out of reach for."""

    def __init__(self, handle: Any) -> None:
        self.publish, self.poll, self.history, self.positions = (
            handle.publish, handle.poll, handle.history, handle.positions,
        )  # fmt: skip


@pytest.fixture(scope="class")
def contract_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One hub for the contract, as its calls do not disturb each other; it has no journal."""
    get_or_create_hub(Settings(data_dir=str(tmp_path_factory.mktemp("hub"))))
    yield ray.get_actor(names.HUB, namespace=names.NAMESPACE)
    end_for_good()


class TestBySocket(HubContract):
    """A process on the hub's node."""

    @pytest.fixture
    def hub(self, contract_hub: Any) -> HubClient:
        return HubClient(contract_hub)

    @pytest.fixture
    def way(self) -> str:
        return "socket"


class TestByActor(HubContract):
    """A process that has only the actor."""

    @pytest.fixture
    def hub(self, contract_hub: Any) -> HubClient:
        return HubClient(OnlyActor(contract_hub))

    @pytest.fixture
    def way(self) -> str:
        return "actor"


class Reader:
    """Follows one channel as a gateway does: polls, and reads the channel again after a gap."""

    def __init__(self, hub: HubClient, channel: str) -> None:
        self._hub = hub
        self._channel = channel
        self.received: list[Publication] = []
        self.lost_its_place = 0
        self._cursor: Cursor | None = None
        self._position: StreamPosition | None = None

    async def begin(self) -> None:
        self._cursor = (await self._hub.poll(None)).cursor
        self._position = (await self._hub.positions([self._channel]))[self._channel]

    async def read(self) -> None:
        try:
            reply = await self._hub.poll(self._cursor, 0.5)
        except HubUnavailableError:
            return
        self._cursor = reply.cursor
        for publication in reply.publications:
            self._take(publication)
        if reply.gap:
            history = await self._hub.history(self._channel, self._position, 100_000)
            self.lost_its_place += not history.recovered
            for publication in history.publications:
                self._take(publication)
            self._position = history.position

    def _take(self, publication: Publication) -> None:
        if publication.channel == self._channel:
            self.received.append(publication)
            self._position = publication.position


async def test_one_program_broadcasts_and_another_receives(hub: HubClient) -> None:
    """In order, each once, over the hub's actor."""
    reader = Reader(hub, "user:7")
    await reader.begin()
    address = ray.get_runtime_context().gcs_address
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(PROGRAM), address, stderr=subprocess.STDOUT, stdout=subprocess.PIPE
    )
    async with asyncio.timeout(60):
        while len(reader.received) < 500:
            await reader.read()
        said, _ = await program.communicate()

    assert program.returncode == 0, said.decode()
    assert [f'"n":{number}}}'.encode() in p.data for number, p in enumerate(reader.received)] == [True] * 500
    assert [publication.offset for publication in reader.received] == list(range(1, 501))


async def test_a_broadcast_from_a_task_needs_one_call(hub: HubClient) -> None:
    """The worker's process finds the hub by itself."""

    @ray.remote
    def work() -> bool:
        from realtime import get_broadcaster

        return get_broadcaster().broadcast_task_progress(1, "work", 100.0, run_id="r1")

    reader = Reader(hub, "run:r1")
    await reader.begin()
    assert await asyncio.wrap_future(work.remote().future())
    async with asyncio.timeout(20):
        while not reader.received:
            await reader.read()

    assert b'"task_name":"work","progress":100.0' in reader.received[0].data


async def test_a_killed_hub_loses_nothing_that_it_confirmed(hub: HubClient) -> None:
    """SIGKILL under load, three times: one epoch, no offset twice, each publication once and in order."""
    reader = Reader(hub, "noc:all")
    await reader.begin()
    first_epoch = (await hub.positions(["noc:all"]))["noc:all"].epoch
    confirmed: list[tuple[bytes, StreamPosition]] = []
    is_over = threading.Event()

    def publish() -> None:
        number = 0
        while not is_over.is_set():
            drafts = [Draft("noc:all", b"%d" % (number + index)) for index in range(3)]
            positions = hub.publish_sync(drafts, timeout_s=60)
            confirmed.extend(zip([draft.data for draft in drafts], positions, strict=True))
            number += 3

    publishing = asyncio.create_task(asyncio.to_thread(publish))
    for _ in range(3):
        before = len(confirmed)
        async with asyncio.timeout(60):
            while len(confirmed) < before + 300:
                await reader.read()
        await asyncio.to_thread(kill_process)
    async with asyncio.timeout(60):
        before = len(confirmed)
        while len(confirmed) < before + 300:
            await reader.read()
        is_over.set()
        await publishing
        while not reader.received or reader.received[-1].data != confirmed[-1][0]:
            await reader.read()

    assert {position.epoch for _, position in confirmed} == {first_epoch}
    places = [(publication.epoch, publication.offset) for publication in reader.received]
    assert len(set(places)) == len(places)
    assert [publication.data for publication in reader.received] == [data for data, _ in confirmed]
    assert [publication.position for publication in reader.received] == [position for _, position in confirmed]
    assert reader.lost_its_place == 0
    assert hub.calls["socket"] > hub.calls["actor"]


async def test_broadcasts_arrive_once_and_in_order_although_the_hub_is_killed(hub: HubClient) -> None:
    """Several batches are under way on the socket when it dies; each goes out again under its name."""
    reader = Reader(hub, "noc:all")
    await reader.begin()
    broadcaster = Broadcaster(BroadcastSettings(batch_size=5), lambda: open_transport(Settings()))
    is_over = threading.Event()
    sent = 0

    def broadcast() -> None:
        nonlocal sent
        while not is_over.is_set():
            # As far ahead of the reader as fits into the buffer while Ray starts the hub again, however long it takes.
            if sent < len(reader.received) + 2_000:
                for _ in range(7):
                    assert broadcaster.publish("noc:all", "x", {"n": sent})
                    sent += 1
            time.sleep(0.02)

    broadcasting = asyncio.create_task(asyncio.to_thread(broadcast))
    ways = set()
    for kill in (True, True, False):
        async with asyncio.timeout(60):
            before = len(reader.received)
            while len(reader.received) < before + 300:
                await reader.read()
        ways.add(broadcaster.health().transport)
        if kill:
            await asyncio.to_thread(kill_process)
    is_over.set()
    await broadcasting
    assert await asyncio.to_thread(broadcaster.flush, 40)
    async with asyncio.timeout(60):
        while len(reader.received) < sent:
            await reader.read()
    health = broadcaster.health()
    await asyncio.to_thread(broadcaster.close)

    numbers = [json.loads(publication.data)["data"]["n"] for publication in reader.received]
    assert numbers == list(range(sent))
    assert (health.confirmed_total, health.waiting, health.dropped_by_reason) == (sent, 0, {})
    assert "socket" in ways


async def test_a_repeated_key_is_published_once_although_the_hub_died_in_between(
    hub: HubClient, settings: Settings
) -> None:
    """A publisher that does not know whether it was heard may simply ask again; a successor keeps the epoch."""
    draft = Draft("noc:all", b'{"event":1}', key="event-1")
    (first,) = await hub.publish([draft])
    await asyncio.to_thread(end_for_good)
    successor = await asyncio.to_thread(get_or_create_hub, settings)
    (again,) = await hub.publish([draft])
    reply = await successor.history("noc:all", None, 100)

    assert (again, [publication.data for publication in reply.publications]) == (first, [draft.data])
    assert draft.data not in everything_in(settings.redis_url)


async def test_the_death_of_valkey_changes_nothing_but_health(tmp_path: Path) -> None:
    """Broadcasting goes on from memory; when it is back, the journal has everything and the epoch stays."""
    service = redis_service(tmp_path, free_port(), Credentials.load_or_create(tmp_path), EmbeddedSettings())
    child = start(service)
    settings = Settings(redis_url=service.url, data_dir=str(tmp_path))
    hub = await asyncio.to_thread(get_or_create_hub, settings)
    try:
        reader = Reader(hub, "noc:all")
        await reader.begin()
        (before,) = await hub.publish([Draft("noc:all", b"1")])
        child.stop()
        (without,) = await hub.publish([Draft("noc:all", b"2")])
        away = await hub.stats()
        child = start(service)
        async with asyncio.timeout(20):
            while (await hub.stats()).journal is not JournalHealth.OK:
                await reader.read()
        await asyncio.sleep(0.1)  # the marker goes last
        (after,) = await hub.publish([Draft("noc:all", b"3")])
        await asyncio.to_thread(kill_process)
        async with asyncio.timeout(60):  # Ray's own time to start a process again, on a busy machine
            while len(reader.received) < 3:
                await reader.read()
        reply = await hub.history("noc:all", before, 100)
    finally:
        child.stop()
        end_for_good()

    assert (away.journal, away.journal_ok) == (JournalHealth.AWAY, False)
    assert [(p.epoch, p.offset) for p in (before, without, after)] == [(before.epoch, n) for n in (1, 2, 3)]
    assert ([p.data for p in reply.publications], reply.recovered) == ([b"2", b"3"], True)
    assert [publication.data for publication in reader.received] == [b"1", b"2", b"3"]


def start(service: EmbeddedService) -> Child:
    child = service.start()
    service.wait_ready(child, 15)
    return child
