"""What ``cluster.store`` promises of a transaction, on both databases."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, func, insert, select, text, update
from sqlalchemy.exc import OperationalError

from cluster.store import in_write, read_transaction, write_transaction
from ingest.dead_letter import dead_letters


def letter(key: str) -> dict[str, object]:
    return {
        "at": 1.0, "last_at": 1.0, "count": 1, "topic": "wf/t/d/telemetry", "reason": "not_json", "detail": "",
        "payload": b"\x00{", "payload_bytes": 2, "sha256": "0" * 64, "key": key, "source": "test",
    }  # fmt: skip


def count(engine: Engine) -> int:
    with read_transaction(engine) as connection:
        return int(connection.execute(select(func.count()).select_from(dead_letters)).scalar_one())


def at_once(work: Callable[[str], None], names: str) -> None:
    """Run ``work`` in a thread for each name; what any of them raises is raised."""
    with ThreadPoolExecutor(len(names)) as pool:
        for done in [pool.submit(work, name) for name in names]:
            done.result(60)


def until_taken(write: Callable[[], None]) -> None:
    """As ingest's lanes do: what collided too often is offered again."""
    for _ in range(20):
        try:
            return write()
        except OperationalError:
            continue
    raise AssertionError("never taken")


class TestTransactions:
    def test_a_write_is_seen_by_the_next_reader(self, sql: Engine) -> None:
        """Committed when the context is left."""
        with write_transaction(sql) as connection:
            connection.execute(insert(dead_letters).values(letter("a")))

        assert count(sql) == 1

    def test_an_error_leaves_nothing_behind(self, sql: Engine) -> None:
        """All of it or none."""
        with pytest.raises(ZeroDivisionError):
            self._fail_after_a_write(sql)

        assert count(sql) == 0

    def _fail_after_a_write(self, sql: Engine) -> None:
        with write_transaction(sql) as connection:
            connection.execute(insert(dead_letters).values(letter("a")))
            raise ZeroDivisionError

    def test_writers_who_read_first_all_succeed(self, sql: Engine) -> None:
        """Read, then write: many times at once, without a lock error and without a lost row."""

        def work(name: str) -> None:
            for number in range(20):
                with write_transaction(sql) as connection:
                    connection.execute(select(func.count()).select_from(dead_letters)).scalar_one()
                    connection.execute(insert(dead_letters).values(letter(f"{name}{number}")))

        at_once(work, "abcd")

        assert count(sql) == 80

    def test_no_writer_overwrites_what_it_has_not_seen(self, sql: Engine) -> None:
        """Four read a number, add one and write it, 15 times each: it ends at 60 more."""
        with write_transaction(sql) as connection:
            connection.execute(insert(dead_letters).values(letter("a")))

        def add_one(connection: Connection) -> None:
            number = connection.execute(select(dead_letters.c.count)).scalar_one()
            connection.execute(update(dead_letters).values(count=number + 1))

        def work(_name: str) -> None:
            for _ in range(15):
                until_taken(lambda: in_write(sql, add_one))

        at_once(work, "abcd")

        with read_transaction(sql) as connection:
            assert connection.execute(select(dead_letters.c.count)).scalar_one() == 61

    def test_a_reader_sees_one_moment(self, sql: Engine) -> None:
        """Two looks within one transaction agree, whatever is committed between them."""
        with read_transaction(sql) as reading:
            before = reading.execute(select(func.count()).select_from(dead_letters)).scalar_one()
            with write_transaction(sql) as connection:
                connection.execute(insert(dead_letters).values(letter("a")))

            assert reading.execute(select(func.count()).select_from(dead_letters)).scalar_one() == before

    def test_a_reader_does_not_wait_for_a_writer(self, sql: Engine) -> None:
        """And sees what was committed before."""
        with write_transaction(sql) as connection:
            connection.execute(insert(dead_letters).values(letter("a")))

            assert count(sql) == 0

    def test_a_commit_is_on_the_disk(self, sql: Engine) -> None:
        """Neither database answers before its log is written, unless an operator chose so."""
        with read_transaction(sql) as connection:
            if connection.dialect.name == "sqlite":
                assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2
            else:
                assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == "on"
