"""The label queue under fifty people: 20,000 questions, five kills of its actor, nothing given twice, nothing lost.

On a Ray of its own with a real SQLite file. 50 clients of one process, as one gateway replica has them, each
lease a question and answer it, over and over, after a tenth of a second on average; five times, evenly over the
work, the actor is killed and Ray starts it again. Latency is of one call as a client sees it. Calls under way in
the silence after a kill last as long as the restart and are counted apart; ``p99_with_kills_ms`` is of all calls.
"""

import asyncio
import collections
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ |= {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}

import ray
from sqlalchemy import func, select

from bench.disk import fdatasync_p50_ms
from cluster import migrate, names
from cluster.actors import prepare_to_serve
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
Span = tuple[float, float]
"""Begin and end of a call, or of a silence, by ``time.perf_counter``."""


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
    calls: list[Span] = []
    given: collections.Counter[tuple[str, int]] = collections.Counter()
    answered: collections.Counter[str] = collections.Counter()
    kill_at = collections.deque(QUESTIONS * number // (KILLS + 1) for number in range(1, KILLS + 1))
    killed: list[float] = []

    async def timed(call: Any) -> Any:
        begun_s = time.perf_counter()
        result = await call
        calls.append((begun_s, time.perf_counter()))
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
            if kill_at and len(answered) >= kill_at[0]:
                kill_at.popleft()
                killed.append(time.perf_counter())
                ray.kill(actor, no_restart=False)

    prepare_to_serve()  # as a gateway replica does
    begun_s = time.perf_counter()
    await asyncio.gather(*(work(number) for number in range(CLIENTS)))
    took_s = time.perf_counter() - begun_s
    engine = open_engine(settings.database_url)
    with read_transaction(engine) as connection:
        stored = connection.execute(select(func.count()).select_from(labels)).scalar_one()
        subjects = connection.execute(select(func.count(labels.c.subject.distinct()))).scalar_one()
    counts = await client.acount_states()
    silences = [_silence(calls, begin, end) for begin, end in pairwise([*killed, math.inf])]
    caught = [call for call in calls if any(call[0] < end <= call[1] for _, end in silences)]
    served = _durations_ms(set(calls) - set(caught))
    return {
        "part": "queue",
        "case": "50 clients, 20,000 questions, 5 kills",
        "questions": QUESTIONS,
        "kills": len(killed),
        "leases_given_twice": sum(count > 1 for count in given.values()),
        "labels_stored": stored,
        "subjects_labelled": subjects,
        "answered_more_than_once": sum(count > 1 for count in answered.values()),
        "left": counts[RequestState.OPEN] + counts[RequestState.LEASED],
        "calls_per_s": round(len(calls) / took_s),
        "p50_ms": round(statistics.median(served), 2),
        "p99_ms": round(served[int(0.99 * len(served))], 2),
        "p99_with_kills_ms": round(_durations_ms(calls)[int(0.99 * len(calls))], 2),
        "longest_served_ms": round(served[-1], 2),
        "calls_caught_by_a_kill": len(caught),
        "silent_after_a_kill_s": [round(end - begin, 2) for begin, end in silences],
        "longest_caught_s": round(_durations_ms(caught)[-1] / 1000, 2),
        "load_average": round(os.getloadavg()[0], 1),
    }


def _silence(calls: Sequence[Span], begin: float, end: float) -> Span:
    """Return the longest time without an answer between two moments: what a kill cost."""
    ends = sorted(call[1] for call in calls if begin <= call[1] < end)
    return max(pairwise([begin, *ends]), key=lambda gap: gap[1] - gap[0])


def _durations_ms(calls: Iterable[Span]) -> list[float]:
    return sorted(1000 * (end - begin) for begin, end in calls)
