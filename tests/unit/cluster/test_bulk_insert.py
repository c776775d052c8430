"""Rows that go past SQLAlchemy arrive as they would through it."""

from typing import Any

import pytest
from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, String, Table, create_engine, insert, select
from sqlalchemy.exc import IntegrityError

from cluster.bulk_insert import BulkInsert
from cluster.store import to_json

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("at", Float),
    Column("number", Integer),
    Column("is_on", Boolean),
    Column("always", JSON),
    Column("perhaps", JSON(none_as_null=True)),
)

ROWS: list[dict[str, Any]] = [
    {"id": "a", "at": 1, "number": 2, "is_on": True, "always": {"x": [1, "é"]}, "perhaps": [1.5]},
    {"id": "b", "at": 0.1, "number": None, "is_on": False, "always": None, "perhaps": None},
    {"id": "c", "at": None, "number": 2**40, "is_on": None, "always": 2**70, "perhaps": {}},
]


def raw(rows: list[dict[str, Any]], *, is_bulk: bool) -> list[tuple[Any, ...]]:
    """Return what the file holds after an insert, as the driver sees it."""
    engine = create_engine("sqlite://", json_serializer=to_json)
    with engine.begin() as connection:
        metadata.create_all(connection)
        if is_bulk:
            BulkInsert(things).run(connection, rows)
        else:
            connection.execute(insert(things), rows)
        return [tuple(row) for row in connection.exec_driver_sql("SELECT *, typeof(at) FROM things ORDER BY id")]


def test_the_rows_are_the_same() -> None:
    """Bytes for bytes what ``execute`` would have written, JSON and NULL included."""
    assert raw(ROWS, is_bulk=True) == raw(ROWS, is_bulk=False)


@pytest.mark.parametrize("count", [1, 2, 3, 127, 128, 129, 500])
def test_any_number_of_rows_arrives_in_order(count: int) -> None:
    """Whatever the parts they are inserted in."""
    rows = [{**ROWS[0], "id": f"{number:04}", "number": number} for number in range(count)]

    assert [row[2] for row in raw(rows, is_bulk=True)] == list(range(count))


def test_a_row_names_every_column() -> None:
    """A default is not filled in, so a row that relies on one is a bug."""
    with pytest.raises(KeyError):
        raw([{"id": "a"}], is_bulk=True)


def test_a_row_that_is_there_already_is_refused() -> None:
    """As SQLAlchemy's own error, which callers catch."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        BulkInsert(things).run(connection, ROWS[:1])
        with pytest.raises(IntegrityError):
            BulkInsert(things).run(connection, ROWS[:1])
        assert connection.scalar(select(things.c.id)) == "a"
