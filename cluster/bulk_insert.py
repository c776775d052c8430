"""INSERT of many rows into one table, past SQLAlchemy's work on each of their values.

SQLAlchemy writes the statement, once for each dialect; the values go to the driver as they are,
JSON columns by the store's own serialiser. On SQLite many rows are one statement: its driver
lets go of the interpreter for each one it carries out, and among busy threads waits to get it
back each time. Invariant: the table gets what ``execute(insert(table), rows)`` would put there;
a row names every column, because defaults are not filled in.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import JSON, Connection, Dialect, Table, insert

from cluster.store import to_json

MAX_ROWS = 128
"""Rows of one statement. Powers of two below it make up the rest, so that few statements are prepared, and once."""

Row = tuple[Any, ...]


class BulkInsert:
    """INSERTs into one table."""

    def __init__(self, table: Table) -> None:
        self._statement = insert(table)
        self._names = tuple(column.name for column in table.columns)
        self._values = itemgetter(*self._names)
        self._json = tuple(
            (place, column.type.none_as_null)
            for place, column in enumerate(table.columns)
            if isinstance(column.type, JSON)
        )
        self._text = lru_cache(maxsize=32)(self._compiled)

    def run(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Insert ``rows``; each names every column of the table.

        Raises:
            KeyError: a row lacks a column.
            sqlalchemy.exc.DBAPIError: as ``execute`` does.
        """
        made = [self._row(row) for row in rows]
        dialect = connection.dialect
        if not dialect.positional:
            named = [dict(zip(self._names, row, strict=True)) for row in made]
            connection.exec_driver_sql(self._text(dialect, 1), named)
            return
        for part in _parts(made):
            connection.exec_driver_sql(self._text(dialect, len(part)), tuple(chain.from_iterable(part)))

    def _row(self, row: dict[str, Any]) -> Row:
        values = list(self._values(row))
        for place, none_as_null in self._json:
            value = values[place]
            values[place] = None if value is None and none_as_null else to_json(value)
        return tuple(values)

    def _compiled(self, dialect: Dialect, num_rows: int) -> str:
        compiled: Any = self._statement.compile(dialect=dialect)
        assert compiled.positiontup in (None, list(self._names))
        text: str = compiled.string
        head, values, row = text.rpartition(" VALUES ")
        return head + values + ", ".join([row] * num_rows)


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start = 0
    while start < len(rows):
        size = min(MAX_ROWS, 1 << (len(rows) - start).bit_length() - 1)
        yield rows[start : start + size]
        start += size
