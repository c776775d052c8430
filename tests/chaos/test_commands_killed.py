"""Desk and ingest killed while commands are under way: each is carried out once and has its end."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ingest_parts import StoppableService, eventually, make_engine, own_broker

from cluster.clock import SystemClock
from ingest.command import CommandOrder, CommandState
from ingest.command_store import CLAIM_S, CommandSettings, CommandStore
from ingest.dead_letter import DeadLetterStore
from ingest.device_commands import CarryOut
from ingest.device_mqtt import DeviceConnection
from ingest.mqtt_address import MqttAddress
from ingest.topics import TopicTree

pytestmark = [pytest.mark.mqtt, pytest.mark.redis, pytest.mark.chaos, pytest.mark.timeout(240)]

KILLS = 15
ORDERS_PER_LIFE = 12
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[StoppableService]:
    made = own_broker(tmp_path / "mqtt")
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("is_away", [pytest.param(False, id="device-there"), pytest.param(True, id="device-away")])
def test_killed_at_any_moment_no_command_is_lost_and_none_is_carried_out_twice(
    broker: StoppableService, redis_url: str, tmp_path: Path, is_away: bool
) -> None:
    """SIGKILL at random moments, and right after a PUBACK that nobody has written down.

    The answer of a device that is there tells of such a command; of one that is away it is sent again under its id.
    """
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    engine = make_engine(tmp_path)
    store = CommandStore(engine, SystemClock(), CommandSettings(max_open_per_device=1000))
    env = os.environ | {
        "MQTT_URL": broker.url,
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"sqlite:///{tmp_path}/floor.db",
        "WATCHFLOOR_TOPIC_ROOT": "chaos",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    done: Counter[int] = Counter()

    def carry_out(payload: dict[str, Any]) -> str:
        done[payload["number"]] += 1
        return f"number {payload['number']}"

    device = _connected(broker.url, carry_out)
    if is_away:
        device.stop()
    ids: list[str] = []
    for life in range(KILLS + 1):
        is_last, dies_by_itself = life == KILLS, life % 2 == 0 and life < KILLS
        program = _start(env, *([str(rng.randint(1, ORDERS_PER_LIFE))] if dies_by_itself else []))
        for _ in range(ORDERS_PER_LIFE):
            payload = {"number": len(ids)}
            order = CommandOrder(tenant="demo", device="pump-7", payload=payload, timeout_s=200.0, user_id="nora")
            ids.append(store.create(order).id)
        if dies_by_itself:
            program.communicate(timeout=30.0)
        elif not is_last:
            time.sleep(rng.uniform(0.0, 1.3))
            _kill(program)

    def stand_at(*states: CommandState) -> bool:
        return all(store.get(one)[0].state in states for one in ids)

    if is_away:
        assert eventually(lambda: stand_at(CommandState.SENT), CLAIM_S + 40.0, every_s=0.5)
        device = _connected(broker.url, carry_out)
    ended = eventually(lambda: stand_at(CommandState.OK), CLAIM_S + 40.0, every_s=0.5)
    _kill(program)
    device.stop()
    found = [store.get(one)[0] for one in ids]
    again = sum(command.attempts > 1 for command in found)
    print(f"seed {seed}: {len(ids)} commands, {KILLS} kills, {again} sent again under their id")

    assert ended, [command for command in found if command.state is not CommandState.OK]
    assert again >= KILLS // 2 if is_away else True, "each death after a PUBACK leaves one to be sent again"
    assert done == dict.fromkeys(range(len(ids)), 1)
    assert [command.detail for command in found] == [f"number {number}" for number in range(len(ids))]
    assert DeadLetterStore(engine, source="test").total() == 0
    for one in ids:
        _, events = store.get(one)
        states = [event.state for event in events]
        assert len(states) == len(set(states)), states
    engine.dispose()


def _connected(url: str, carry_out: CarryOut) -> DeviceConnection[int]:
    device: DeviceConnection[int] = DeviceConnection.for_device(
        MqttAddress.parse(url), TopicTree("chaos"), "demo", "pump-7", carry_out
    )
    device.start()
    assert device.wait_connected(20.0)
    return device


def _start(env: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    argv = [sys.executable, str(Path(__file__).with_name("dying_desk.py")), *arguments]
    program = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    return program


def _kill(program: "subprocess.Popen[str]") -> None:
    program.kill()
    program.communicate(timeout=10.0)
