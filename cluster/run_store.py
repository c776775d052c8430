"""The table of runs, read and written.

Decides nothing. Invariant: ``change`` reads, decides and writes within one transaction,
so two callers never overwrite each other, in one process or in several.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from cluster.errors import RunNotFoundError
from cluster.runs import TERMINAL_STATES, Run, RunOrigin, RunState, runs
from cluster.store import in_write, read_transaction

MAX_LISTED = 1000


class RunStore:
    """Runs in the floor's SQL store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, run: Run) -> tuple[Run, bool]:
        """Insert ``run`` unless it was added before.

        Returns:
            The run that is stored, and whether it is new: a run of the same submission id, or
            of the same user with the same request id, is the same run.
        """
        same = runs.c.submission_id == run.submission_id
        if run.request_id is not None:
            same |= (runs.c.user_id == run.user_id) & (runs.c.request_id == run.request_id)

        def step(connection: Connection) -> tuple[Run, bool]:
            found = connection.execute(select(runs).where(same)).first()
            if found is not None:
                return _to_run(found), False
            connection.execute(insert(runs).values(**_to_row(run)))
            return run, True

        try:
            return in_write(self._engine, step)
        except IntegrityError:
            # Added by another process between the look and the insert (PostgreSQL): now it is found.
            return in_write(self._engine, step)

    def change(self, run_id: str, change: Callable[[Run], Run]) -> tuple[Run, bool]:
        """Replace a run by what ``change`` makes of it; a changed run gets the next version.

        ``change`` may be called again, on what another process made of the run meanwhile.

        Returns:
            The run that is stored now, and whether it differs from before.

        Raises:
            RunNotFoundError: no such run. What ``change`` raises passes, and nothing is written.
        """

        def step(connection: Connection) -> tuple[Run, bool]:
            before = _select(connection, run_id)
            after = change(before)
            if after == before:
                return before, False
            after = dataclasses.replace(after, version=before.version + 1)
            connection.execute(update(runs).where(runs.c.id == run_id).values(**_to_row(after)))
            return after, True

        return in_write(self._engine, step)

    def get(self, run_id: str) -> Run:
        """Return the run.

        Raises:
            RunNotFoundError: no such run.
        """
        with read_transaction(self._engine) as connection:
            return _select(connection, run_id)

    def tenants(self, run_ids: Sequence[str]) -> dict[str, str | None]:
        """Return the tenant of each of these runs that exists; None: the run belongs to the floor."""
        found: dict[str, str | None] = {}
        with read_transaction(self._engine) as connection:
            for first in range(0, len(run_ids), MAX_LISTED):
                chosen = runs.c.id.in_(run_ids[first : first + MAX_LISTED])
                rows = connection.execute(select(runs.c.id, runs.c.tenant).where(chosen))
                found.update({row.id: row.tenant for row in rows})
        return found

    def live(self) -> list[Run]:
        """Return every run that has not ended, oldest first."""
        ended = [state.value for state in TERMINAL_STATES]
        query = select(runs).where(runs.c.state.not_in(ended)).order_by(runs.c.created_at, runs.c.id)
        with read_transaction(self._engine) as connection:
            return [_to_run(row) for row in connection.execute(query)]

    def list(self, limit: int, state: RunState | None = None) -> tuple[Run, ...]:
        """Return at most ``limit`` (1 to 1000) runs, newest first; ``state`` None means all."""
        query = select(runs).order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(max(1, min(limit, MAX_LISTED)))
        if state is not None:
            query = query.where(runs.c.state == state.value)
        with read_transaction(self._engine) as connection:
            return tuple(_to_run(row) for row in connection.execute(query))


def _select(connection: Connection, run_id: str) -> Run:
    row = connection.execute(select(runs).where(runs.c.id == run_id)).first()
    if row is None:
        raise RunNotFoundError(run_id)
    return _to_run(row)


def _to_run(row: Row[Any]) -> Run:
    values = dict(row._mapping)
    values["state"] = RunState(values["state"])
    values["origin"] = RunOrigin(values["origin"])
    values["stop_state"] = RunState(values["stop_state"]) if values["stop_state"] else None
    return Run(**values)


def _to_row(run: Run) -> dict[str, Any]:
    values = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    values["state"] = run.state.value
    values["origin"] = run.origin.value
    values["stop_state"] = run.stop_state.value if run.stop_state else None
    return values
