"""The label queue under fifty people: 20,000 questions, five kills of its actor, nothing given twice, nothing lost.

On a Ray of its own with a real SQLite file. Each of 50 clients leases a question and answers it, over and
over, after a tenth of a second on average; five times meanwhile the actor is killed and Ray starts it again. Latency is
of one call as a client sees it; the calls that a kill caught are counted apart, because they last as long as
the restart.
"""

import asyncio
import collections
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}

import ray
from sqlalchemy import func, select

from bench.disk import fdatasync_p50_ms
from cluster import migrate, names
from cluster.settings import Settings
from cluster.store import open_engine, read_transaction
from training.labelling.answering import Answer
from training.labelling.label_actor import get_or_create_label_queue
from training.labelling.label_client import LabelQueueClient
from training.labelling.labels import Question, RequestState, labels
from training.labelling.leasing import Holder

CLIENTS = 50
QUESTIONS = 20_000
KILLS = 5
THINK_S = 0.1
"""Mean time that a person takes for an answer: fast people, and 500 answers a second all together."""
CAUGHT_S = 0.5
"""A call that took longer was caught by a kill."""


def rows(seeds: int) -> Iterator[dict[str, Any]]:
    """Yield the one row."""
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as folder:
        settings = Settings(database_url=f"sqlite:///{folder}/floor.db", data_dir=folder)
        os.environ |= {"DATABASE_URL": settings.database_url, "WATCHFLOOR_DATA_DIR": folder}
        migrate.upgrade(settings.database_url)
        ray.init(
            address="local",
            namespace=names.NAMESPACE,
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 2**20,
        )
        try:
            actor = get_or_create_label_queue(settings)
            yield asyncio.run(_measure(actor, settings)) | {
                "fdatasync_p50_ms": fdatasync_p50_ms(Path(folder)),
                "seed": seeds,
            }
        finally:
            ray.shutdown()


async def _measure(actor: Any, settings: Settings) -> dict[str, Any]:
    client = LabelQueueClient(actor)
    for start in range(0, QUESTIONS, 1000):
        questions = [
            Question(subject=f"window:{number}", asked_by="bench", priority=float(number % 7))
            for number in range(start, start + 1000)
        ]
        await asyncio.to_thread(client.ask, questions)
    calls: list[float] = []
    given: collections.Counter[tuple[str, int]] = collections.Counter()
    answered: collections.Counter[str] = collections.Counter()
    done = asyncio.Event()

    async def timed(call: Any) -> Any:
        begun_s = time.perf_counter()
        result = await call
        calls.append(time.perf_counter() - begun_s)
        return result

    async def work(number: int) -> None:
        rng = random.Random(number)
        holder = Holder(f"user-{number}", f"session-{number}")
        while leased := await timed(client.alease(holder, 1)):
            (one,) = leased
            given[one.id, one.token] += 1
            said = Answer(request_id=one.id, token=one.token, value="normal", user_id=holder.user_id)
            await asyncio.sleep(rng.expovariate(1 / THINK_S))
            label = await timed(client.aanswer(said))
            answered[label.subject] += 1

    async def kill() -> int:
        killed = 0
        while killed < KILLS and not done.is_set():
            await asyncio.sleep(2.0)
            ray.kill(actor, no_restart=False)
            killed += 1
        return killed

    begun_s = time.perf_counter()
    killing = asyncio.create_task(kill())
    await asyncio.gather(*(work(number) for number in range(CLIENTS)))
    took_s = time.perf_counter() - begun_s
    done.set()
    killed = await killing
    engine = open_engine(settings.database_url)
    with read_transaction(engine) as connection:
        stored = connection.execute(select(func.count()).select_from(labels)).scalar_one()
        subjects = connection.execute(select(func.count(labels.c.subject.distinct()))).scalar_one()
    counts = await client.acount_states()
    caught = [call for call in calls if call > CAUGHT_S]
    served = sorted(call for call in calls if call <= CAUGHT_S)
    return {
        "part": "queue",
        "case": "50 clients, 20,000 questions, 5 kills",
        "questions": QUESTIONS,
        "kills": killed,
        "leases_given_twice": sum(count > 1 for count in given.values()),
        "labels_stored": stored,
        "subjects_labelled": subjects,
        "answered_more_than_once": sum(count > 1 for count in answered.values()),
        "left": counts[RequestState.OPEN] + counts[RequestState.LEASED],
        "calls_per_s": round(len(calls) / took_s),
        "p50_ms": round(1000 * statistics.median(served), 2),
        "p99_ms": round(1000 * served[int(0.99 * len(served))], 2),
        "calls_caught_by_a_kill": len(caught),
        "longest_caught_s": round(max(caught, default=0.0), 2),
    }
