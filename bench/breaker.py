"""What guarding a call costs while all is well: ours beside four libraries, in one process and run.

The closed circuit's successful call, nanoseconds of CPU time a call, the bare call included.
Every way of guarding takes its turn in every round and the medians of the rounds are given,
so that a busy machine is unfair to all alike. The libraries are installed at the first run
into ``.peers/breaker`` beside the checkout's .venv, never into it.

    python -m bench.breaker [--json] [--rounds 15] [--calls 20000]
"""

import argparse
import asyncio
import contextlib
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cluster.breaker import Breaker
from cluster.circuit_policies import BreakerSettings

PEERS = ("pybreaker==1.4.1", "purgatory==3.0.1", "aiobreaker==1.2.0", "circuitbreaker==2.1.3")
FOLDER = Path(__file__).parent.parent / ".peers" / "breaker"
SERVICE = "mqtt_broker"

Call = Callable[[], object]
AsyncCall = Callable[[], Awaitable[object]]


def work() -> int:
    return 1


async def awork() -> int:
    return 1


def ours() -> tuple[dict[str, Call], dict[str, AsyncCall]]:
    """Our ways: the block with a deadline, and the function that is guarded as a whole."""
    breaker = Breaker(BreakerSettings())

    def block() -> None:
        with breaker.call(SERVICE, timeout_s=10):
            work()

    kept = breaker.call(SERVICE, timeout_s=10)

    def kept_block() -> None:
        with kept:
            work()

    async def akept_block() -> None:
        async with kept:
            await awork()

    async def ablock() -> None:
        async with breaker.call(SERVICE, timeout_s=10):
            await awork()

    guard = breaker.guard(SERVICE)
    return (
        {"watchfloor decorator": guard(work), "watchfloor with": block, "watchfloor with, one call kept": kept_block},
        {
            "watchfloor decorator": guard(awork),
            "watchfloor with": ablock,
            "watchfloor with, one call kept": akept_block,
        },
    )


def theirs() -> tuple[dict[str, Call], dict[str, AsyncCall]]:
    """The libraries' documented ways; none of them has a deadline."""
    import aiobreaker
    import circuitbreaker
    import purgatory
    import pybreaker

    factory, afactory = purgatory.SyncCircuitBreakerFactory(), purgatory.AsyncCircuitBreakerFactory()
    never_refuses = circuitbreaker.CircuitBreaker()
    held = factory.get_breaker("held")

    def purgatory_block() -> None:
        with factory.get_breaker(SERVICE):
            work()

    def purgatory_held() -> None:
        with held:
            work()

    def circuitbreaker_block() -> None:
        with never_refuses:
            work()

    async def purgatory_ablock() -> None:
        async with await afactory.get_breaker(SERVICE):
            await awork()

    return (
        {
            "pybreaker decorator": pybreaker.CircuitBreaker()(work),
            "purgatory decorator": factory(SERVICE)(work),
            "purgatory with": purgatory_block,
            "purgatory with, one context kept": purgatory_held,
            "aiobreaker decorator": aiobreaker.CircuitBreaker()(work),
            "circuitbreaker decorator": circuitbreaker.CircuitBreaker()(work),
            "circuitbreaker with (runs while open)": circuitbreaker_block,
        },
        {
            "purgatory decorator": afactory(SERVICE)(awork),
            "purgatory with": purgatory_ablock,
            "aiobreaker decorator": aiobreaker.CircuitBreaker()(awork),
            "circuitbreaker decorator": circuitbreaker.CircuitBreaker()(awork),
        },
    )


def measure(ways: dict[str, Call], rounds: int, calls: int) -> dict[str, float]:
    """Return nanoseconds a call, by way."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            started_s = time.process_time()
            for _ in range(calls):
                call()
            found[name].append((time.process_time() - started_s) / calls * 1e9)
    return {name: round(statistics.median(times)) for name, times in found.items()}


async def ameasure(ways: dict[str, AsyncCall], rounds: int, calls: int) -> dict[str, float]:
    """Return nanoseconds an awaited call, by way."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            started_s = time.process_time()
            for _ in range(calls):
                await call()
            found[name].append((time.process_time() - started_s) / calls * 1e9)
    return {name: round(statistics.median(times)) for name, times in found.items()}


def rejected_ns(calls: int) -> float:
    """Return what a refusal costs while the circuit is open."""
    breaker = Breaker(BreakerSettings())
    for _ in range(5):
        with contextlib.suppress(ConnectionError), breaker.call(SERVICE):
            raise ConnectionError
    guarded = breaker.guard(SERVICE)(work)
    started_s = time.process_time()
    for _ in range(calls):
        with contextlib.suppress(Exception):
            guarded()
    return round((time.process_time() - started_s) / calls * 1e9)


def install_peers() -> None:
    """Install the libraries at the first run and make them importable behind our own."""
    if not FOLDER.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(FOLDER), "--no-deps"]
        # In memory they need nothing else, and what they would bring could stand before our own.
        subprocess.run([*command, *PEERS], check=True)
    sys.path.append(str(FOLDER))


def figures(rounds: int, calls: int) -> dict[str, Any]:
    """Return every way's cost and whether ours is the cheapest."""
    install_peers()
    (our, aour), (their, atheir) = ours(), theirs()
    gc.disable()
    sync = measure({"bare": work} | our | their, rounds, calls)
    async_ = asyncio.run(ameasure({"bare": awork} | aour | atheir, rounds, calls))
    return {
        "bench": "breaker",
        "unit": "ns of CPU time a call, median",
        "rounds": rounds,
        "calls": calls,
        "sync": sync,
        "async": async_,
        "refused": rejected_ns(calls),
        "fastest_library": min(sync[name] for name in their),
        "fastest_library_async": min(async_[name] for name in atheir),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=20_000)
    options = parser.parse_args()
    found = figures(options.rounds, options.calls)
    if options.json:
        print(json.dumps(found))
        return
    for kind in ("sync", "async"):
        print(f"{kind}, {found['unit']}")
        for name, cost in sorted(found[kind].items(), key=lambda one: one[1]):
            print(f"  {name:<40} {cost:>6.0f}")
    print(f"refused while open                         {found['refused']:>6.0f}")


if __name__ == "__main__":
    main()
