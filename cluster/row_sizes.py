"""What a table takes up, estimated: the number of its rows times the size of its newest ones.

Neither database tells it in time: SQLite would read the whole table, and PostgreSQL counts the
room that deleted rows have left. Invariant: the cost does not grow with the size of the rows.
"""

from sqlalchemy import Connection, LargeBinary, Table, Text, cast, func, select

SAMPLE_ROWS = 200
ROW_BYTES = 100
"""Of a row beside its values: its header, and its entries in indexes."""


def estimated_bytes(connection: Connection, table: Table) -> int:
    """Return about how many bytes the rows of a table hold; its primary key must grow with time."""
    rows = connection.execute(select(func.count()).select_from(table)).scalar_one()
    if not rows:
        return 0
    newest = select(table).order_by(*(column.desc() for column in table.primary_key)).limit(SAMPLE_ROWS).subquery()
    sizes = [
        func.coalesce(func.length(column if isinstance(column.type, LargeBinary) else cast(column, Text)), 0)
        for column in newest.c
    ]
    mean = connection.execute(select(func.avg(sum(sizes[1:], sizes[0])))).scalar_one()
    return int(rows * (float(mean) + ROW_BYTES))
