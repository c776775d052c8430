"""What a table takes up, estimated: the number of its rows times the mean size of its newest and oldest ones.

Neither database tells it in time: SQLite would read the whole table, and PostgreSQL counts the
room that deleted rows have left. Invariant: exact up to ``2 * SAMPLE_ROWS`` rows; beyond, the
cost does not grow with the size of the rows.
"""

from sqlalchemy import Connection, LargeBinary, Table, Text, cast, func, select, union

SAMPLE_ROWS = 100
"""Rows looked at from each end."""
ROW_BYTES = 100
"""Of a row beside its values: its header, and its entries in indexes."""


def estimated_bytes(connection: Connection, table: Table) -> int:
    """Return about how many bytes the rows of a table hold; its primary key should grow with time."""
    rows = connection.execute(select(func.count()).select_from(table)).scalar_one()
    if not rows:
        return 0
    sizes = [
        func.coalesce(func.length(column if isinstance(column.type, LargeBinary) else cast(column, Text)), 0)
        for column in table.c
    ]
    keys = list(table.primary_key)
    size = select(*keys, sum(sizes[1:], sizes[0]).label("size"))
    ends = (
        size.order_by(*order).limit(SAMPLE_ROWS).subquery().select() for order in ([key.desc() for key in keys], keys)
    )
    # A row that both ends have counts once: the key makes it the same row of the union.
    mean = connection.execute(select(func.avg(union(*ends).subquery().c.size))).scalar_one()
    return int(rows * (float(mean) + ROW_BYTES))
