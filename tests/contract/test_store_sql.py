"""What ``cluster.store`` promises of a transaction, on both databases."""

import threading

import pytest
from sqlalchemy import Engine, func, insert, select, text

from cluster.store import read_transaction, write_transaction
from ingest.dead_letter import dead_letters


def letter(key: str) -> dict[str, object]:
    return {
        "at": 1.0, "last_at": 1.0, "count": 1, "topic": "wf/t/d/telemetry", "reason": "not_json", "detail": "",
        "payload": b"\x00{", "payload_bytes": 2, "sha256": "0" * 64, "key": key, "source": "test",
    }  # fmt: skip


def count(engine: Engine) -> int:
    with read_transaction(engine) as connection:
        return int(connection.execute(select(func.count()).select_from(dead_letters)).scalar_one())


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

    def test_two_writers_who_read_first_both_succeed(self, sql: Engine) -> None:
        """Read, then write: many times at once, without a lock error and without a lost row."""
        errors: list[Exception] = []

        def work(name: str) -> None:
            try:
                for number in range(20):
                    with write_transaction(sql) as connection:
                        connection.execute(select(func.count()).select_from(dead_letters)).scalar_one()
                        connection.execute(insert(dead_letters).values(letter(f"{name}{number}")))
            except Exception as error:  # whatever it is, the test must see it
                errors.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert (errors, count(sql)) == ([], 80)

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
