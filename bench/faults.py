"""The fault matrix: what a device was told is accepted is stored exactly once, whatever breaks.

``python -m bench.faults --json [--row NAME ...]`` runs each row once on one floor of real
processes (``fault_floor.py``) and prints one line for it:

- ``accepted``: messages whose PUBACK reached the device; ``stored``: those of them that lie
  in a store; ``lost`` and ``doubled`` are what must be 0;
- ``recovery_s``: from the end of the fault (for a kill: from the restart, the start of the
  process included) until everything accepted by then is stored, and judged by the detector;
- ``longest_block_s``: the longest time for which ingest's housekeeping stood still, which calls
  both stores; null where ingest itself was killed or stopped;
- ``fdatasync_p50_ms``: of the disk under the stores of the floor.

Each row proves that its fault happened before it looks at the outcome.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.fault_floor import READINGS_PER_S, FaultFloor, Part, fault_floor, until
from tests.ingest_parts import HAS_MOSQUITTO, CountingDevice, Ingest, make_engine, own_mosquitto, own_valkey

Fault = Callable[[FaultFloor], float]
"""Breaks something, sends meanwhile, mends it; returns the moment (monotonic s) at which it was mended."""

HOUR_S = 3600.0


def kill_ingest(floor: FaultFloor) -> float:
    floor.ingest.kill()
    floor.send_for(0.7)
    return _restarted(floor.ingest)


def stop_ingest(floor: FaultFloor) -> float:
    floor.ingest.pause()
    floor.send_for(4.0)  # longer than the broker waits for a ping: it ends the connection
    floor.ingest.resume()
    return time.monotonic()


def kill_detector(floor: FaultFloor) -> float:
    floor.detector.kill()
    floor.send_for(0.7)
    assert floor.detector_lag() > 0, "nothing waited for the detector"
    return _restarted(floor.detector)


def stop_detector(floor: FaultFloor) -> float:
    floor.detector.pause()
    floor.send_for(1.0)
    assert floor.detector_lag() > 0, "nothing waited for the detector"
    floor.detector.resume()
    return time.monotonic()


def kill_valkey(floor: FaultFloor) -> float:
    floor.valkey.kill()
    floor.send_for(0.7)
    _wait_blocked(floor, "telemetry")
    floor.valkey.start()
    return time.monotonic()


def stop_valkey(floor: FaultFloor) -> float:
    floor.valkey.pause()
    floor.send_for(1.0)
    _wait_blocked(floor, "telemetry")
    floor.valkey.resume()
    return time.monotonic()


def kill_postgres(floor: FaultFloor) -> float:
    floor.postgres.kill()
    floor.send_for(0.7)
    _wait_blocked(floor, "alert")
    floor.postgres.start()
    return time.monotonic()


def stop_postgres(floor: FaultFloor) -> float:
    floor.postgres.pause()
    floor.send_for(1.0)
    _wait_blocked(floor, "alert")
    floor.postgres.resume()
    return time.monotonic()


def kill_broker(floor: FaultFloor) -> float:
    floor.broker.kill()
    floor.send_for(0.5)
    until(lambda: not floor.ingest.says()["broker_connected"], "ingest does not notice")
    floor.broker.start()
    return time.monotonic()


def fill_valkey(floor: FaultFloor) -> float:
    bound = floor.valkey_command("CONFIG", "GET", "maxmemory")
    bound_bytes = bound["maxmemory"] if isinstance(bound, dict) else bound[1]
    used = int(str(floor.valkey_command("INFO", "memory")["used_memory"]))
    floor.valkey_command("CONFIG", "SET", "maxmemory", str(used))
    floor.send_for(0.7)
    _wait_blocked(floor, "telemetry", "is full")
    floor.valkey_command("CONFIG", "SET", "maxmemory", str(bound_bytes))
    return time.monotonic()


def fill_disk(floor: FaultFloor) -> float:
    assert floor.disk is not None, "this machine lets nobody mount a small disk"
    filler = floor.disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    floor.send_for(0.7)
    _wait_blocked(floor, "telemetry")
    filler.unlink()
    # With `appendfsync always` a Valkey that cannot write ends at once; the supervisor starts it again.
    floor.valkey.kill()
    floor.valkey.start()
    return time.monotonic()


def cut_broker(floor: FaultFloor) -> float:
    floor.to_broker.freeze()
    floor.send_for(1.0)
    until(lambda: not floor.ingest.says()["broker_connected"], "ingest does not notice")
    floor.to_broker.mend()
    return time.monotonic()


def cut_valkey(floor: FaultFloor) -> float:
    floor.to_valkey.freeze()
    floor.send_for(1.0)
    _wait_blocked(floor, "telemetry")
    floor.to_valkey.mend()
    return time.monotonic()


def cut_sql(floor: FaultFloor) -> float:
    floor.to_sql.freeze()
    floor.send_for(1.0)
    _wait_blocked(floor, "alert")
    floor.to_sql.mend()
    return time.monotonic()


def reset_connections(floor: FaultFloor) -> float:
    for _ in range(4):
        for proxy in (floor.to_broker, floor.to_valkey, floor.to_sql):
            proxy.reset()
        floor.send_for(0.3)
    return time.monotonic()


def slice_packets(floor: FaultFloor) -> float:
    proxies = (floor.to_broker, floor.to_valkey, floor.to_sql)
    before = sum(proxy.num_packets for proxy in proxies)
    for proxy in proxies:
        proxy.slice_bytes = 1
    floor.send_for(1.5, per_second=20)
    floor.wait_stored(floor.accepted())
    assert sum(proxy.num_packets for proxy in proxies) - before > 3000, "nothing was sliced"
    for proxy in proxies:
        proxy.mend()
    return time.monotonic()


def jump_clock(floor: FaultFloor) -> float:
    for hours in (1, -1):
        floor.ingest.move_clock(hours * HOUR_S)
        floor.send_for(0.7)
        floor.wait_stored(floor.accepted())
        if hours > 0:
            assert floor.newest_received_at() - time.time() > HOUR_S / 2, "the clock did not move"
    floor.ingest.move_clock(0)
    return time.monotonic()


def repeat_and_reorder(floor: FaultFloor) -> float:
    duplicates = floor.ingest.says()["duplicates_total"]
    first = floor.device.next_seq()
    seqs = [*range(first, first + 100)] * 3
    random.Random(7).shuffle(seqs)
    floor.device.send_again(seqs)
    until(lambda: floor.ingest.says()["duplicates_total"] >= duplicates + 200, "no repetition was noticed")
    return time.monotonic()


def second_ingest(floor: FaultFloor) -> float:
    other = floor.new_part("ingest")
    other.start()
    until(lambda: bool(other.says().get("broker_connected")), "the second ingest does not connect")
    before = floor.ingest.num_connections()
    floor.send_for(2.0)
    assert floor.ingest.num_connections() > before or other.num_connections() > 1, "they did not meet"
    other.kill()
    return time.monotonic()


ROWS: Mapping[str, Fault] = {
    "ingest SIGKILL": kill_ingest,
    "ingest SIGSTOP": stop_ingest,
    "detector SIGKILL": kill_detector,
    "detector SIGSTOP": stop_detector,
    "Valkey SIGKILL": kill_valkey,
    "Valkey SIGSTOP": stop_valkey,
    "Valkey at maxmemory": fill_valkey,
    "Valkey's disk full": fill_disk,
    "PostgreSQL SIGKILL": kill_postgres,
    "PostgreSQL SIGSTOP": stop_postgres,
    "nats-server SIGKILL": kill_broker,
    "network to the broker cut": cut_broker,
    "network to Valkey cut": cut_valkey,
    "network to SQL cut": cut_sql,
    "connections reset": reset_connections,
    "1-byte packets": slice_packets,
    "clock +1 h, -1 h": jump_clock,
    "repeated and reordered": repeat_and_reorder,
    "two ingest owners": second_ingest,
}
"""Fault -> how it is done."""


def run(floor: FaultFloor, name: str) -> dict[str, Any]:
    """Run one row on a floor that is well, leave it well, and return its figures."""
    floor.send_for(0.3)
    before, began_s = floor.accepted(), time.monotonic()
    ended_s = ROWS[name](floor)
    floor.wait_stored(floor.accepted())
    until(lambda: floor.detector_lag() == 0, "the detector does not catch up")
    recovered_s = time.monotonic()
    floor.send_for(0.2)
    assert floor.device.wait_all_acknowledged(60.0), "the broker does not accept"
    accepted = floor.accepted()
    floor.wait_stored(accepted)
    until(lambda: floor.detector_lag() == 0, "the detector does not catch up")
    until(lambda: not floor.ingest.says()["blocked"] and floor.ingest.says()["window"] == 0, "ingest is not well")
    found = floor.stored()
    own = accepted - before
    return {
        "fault": name,
        "accepted": len(own),
        "stored": len([key for key in own if found[key]]),
        "lost": len(accepted - found.keys()),
        "doubled": sum(count - 1 for count in found.values()),
        "recovery_s": round(recovered_s - ended_s, 2),
        "longest_block_s": None if name.startswith("ingest") else round(floor.ingest.longest_silence_s(began_s), 2),
    }


def run_mosquitto() -> dict[str, Any]:
    """Kill a mosquitto that saves as ``deploy/mosquitto.conf`` says, and holds messages for an ingest that is away."""
    with tempfile.TemporaryDirectory(prefix="wf-faults-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        broker, valkey = own_mosquitto(folder / "broker", saves=True), own_valkey(folder)
        for service in (broker, valkey):
            service.start()
            stack.callback(service.stop)
        ingest = Ingest(broker.url, valkey.url, make_engine(folder))
        stack.callback(ingest.engine.dispose)
        stack.callback(ingest.stream.close)
        ingest.start()
        ingest.stop()  # from now on the broker keeps messages for it
        device = CountingDevice(broker.url, ingest.root, "pump-7", in_flight=2000)
        device.send_for(1.8, per_second=READINGS_PER_S)
        broker.kill()
        accepted = set(device.acknowledged())
        device.close()
        broker.start()
        began_s = time.monotonic()
        ingest.start()
        stack.callback(ingest.stop)
        until(lambda: ingest.status().window == 0 and bool(ingest.stored_keys()), "nothing comes back")
        recovered_s = time.monotonic()
        time.sleep(0.5)  # for what may come twice
        stored = Counter(ingest.stored_keys())
        return {
            "fault": "mosquitto SIGKILL",
            "accepted": len(accepted),
            "stored": len(accepted & stored.keys()),
            "lost": len(accepted - stored.keys()),
            "doubled": sum(count - 1 for count in stored.values()),
            "recovery_s": round(recovered_s - began_s, 2),
            "longest_block_s": None,
        }


def fdatasync_p50_ms(folder: Path, tries: int = 50) -> float:
    """Return what it takes to make 4 KiB durable there."""
    times = []
    with (folder / "fdatasync").open("wb", buffering=0) as file:
        for _ in range(tries):
            file.write(bytes(4096))
            began_s = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began_s)
    return round(statistics.median(times) * 1000, 2)


def _restarted(part: Part) -> float:
    began_s = time.monotonic()
    part.start()
    return began_s


def _wait_blocked(floor: FaultFloor, lane: str, reason: str = "") -> None:
    def is_blocked() -> bool:
        blocked = floor.ingest.says()["blocked"]
        return lane in blocked and reason in blocked[lane]

    until(is_blocked, f"lane {lane} does not stop acknowledging", timeout_s=20.0)


def main() -> None:
    """Run the rows, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line per row")
    parser.add_argument("--row", action="append", choices=ROWS, help="only this one; repeatable")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        fdatasync_ms = fdatasync_p50_ms(Path(name))

    def say(figures: dict[str, Any]) -> None:
        figures = figures | {"fdatasync_p50_ms": fdatasync_ms}
        text = "  ".join(f"{key} {value}" for key, value in figures.items())
        print(json.dumps(figures) if options.json else text, flush=True)

    with fault_floor() as floor:
        for row in options.row or ROWS:
            say(run(floor, row))
    if HAS_MOSQUITTO and not options.row:
        say(run_mosquitto())


if __name__ == "__main__":
    main()
