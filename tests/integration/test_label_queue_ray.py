"""The label queue as an actor: many people through one client, and a kill in the middle."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from sqlalchemy import select

from cluster import migrate, names
from cluster.errors import ServiceUnavailableError
from cluster.settings import Settings
from cluster.store import open_engine, read_transaction
from training.errors import StaleLeaseError
from training.labelling.answering import Answer
from training.labelling.label_actor import get_or_create_label_queue
from training.labelling.label_client import LabelQueueClient
from training.labelling.labels import Question, RequestState, labels
from training.labelling.leasing import Holder

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

PEOPLE = 20
QUESTIONS = 400


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/floor.db", data_dir=str(tmp_path))
    migrate.upgrade(settings.database_url)
    ray.init(
        address="local",
        namespace=names.NAMESPACE,
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
    )
    yield settings
    ray.shutdown()


async def until_answered(call: Any, *args: Any) -> Any:
    """Repeat a call as long as the queue is away: it may be repeated."""
    while True:
        try:
            return await call(*args)
        except ServiceUnavailableError:
            continue


def test_a_kill_in_the_middle_gives_nothing_twice_and_loses_nothing(settings: Settings) -> None:
    """A token is one person's, and each question has one label; whoever is refused is refused alone."""
    actor = get_or_create_label_queue(settings)
    people = LabelQueueClient(actor)
    people.ask([Question(subject=f"w:{number}", asked_by="m") for number in range(QUESTIONS)])
    given: Counter[tuple[str, int]] = Counter()
    confirmed: Counter[str] = Counter()

    async def work(number: int) -> None:
        holder = Holder(f"user-{number}", f"visit-{number}")
        while leased := await until_answered(people.alease, holder, 2):
            for one in leased:
                given[one.id, one.token] += 1
                said = Answer(request_id=one.id, token=one.token, value="normal", user_id=holder.user_id)
                confirmed[(await until_answered(people.aanswer, said)).subject] += 1
                if confirmed.total() == QUESTIONS // 2:
                    ray.kill(actor, no_restart=False)
            with pytest.raises(StaleLeaseError):
                await until_answered(people.askip, leased[0].id, leased[0].token, holder.user_id, "answered already")

    async def all_of_them() -> dict[RequestState, int]:
        await asyncio.gather(*(work(number) for number in range(PEOPLE)))
        return await people.acount_states()

    counts = asyncio.run(all_of_them())

    assert counts[RequestState.ANSWERED] == QUESTIONS
    assert set(given.values()) == {1}
    assert confirmed == {f"w:{number}": 1 for number in range(QUESTIONS)}
    with read_transaction(open_engine(settings.database_url)) as connection:
        assert Counter(connection.execute(select(labels.c.subject)).scalars()) == confirmed
