"""Users whom the directory has shut out, as one gateway replica knows them.

The set is read every few seconds and kept while the SQL store is away, so asking costs nothing
and no request waits for it. Invariant: a user who was disabled is refused by every replica
within ``REFRESH_S``, and whoever follows hears of each of them once.
"""

from collections.abc import Callable

from sqlalchemy import Engine

from cluster.clock import SystemClock
from ingest.directory_store import DirectoryStore
from ingest.woken_loop import WokenLoop

REFRESH_S = 5.0


class DisabledUsers:
    """Who may not come in, whatever their token says."""

    def __init__(self, engine: Engine) -> None:
        self._store = DirectoryStore(engine, SystemClock())
        self._users: frozenset[tuple[str, str | None]] = frozenset()
        self._loop = WokenLoop("disabled-users", self.refresh, sweep_s=REFRESH_S)
        self._tell: Callable[[str, str | None], None] = lambda _user, _tenant: None

    def __contains__(self, user: object) -> bool:
        """Tell whether the directory has this (id, tenant) and has disabled it.

        With the tenant, because a tenant's admin writes users: it must not shut out another tenant's.
        """
        return user in self._users

    def start(self) -> None:
        """Read the directory now and from time to time."""
        self._loop.start()

    def wake(self) -> None:
        """The directory was just changed. Never blocks."""
        self._loop.wake()

    def follow(self, tell: Callable[[str, str | None], None]) -> None:
        """Have ``tell`` called, on a thread of ours, with id and tenant of each user who is disabled from now on."""
        self._tell = tell

    def refresh(self) -> bool:
        """Read the directory; False, as there is no more to do."""
        before, self._users = self._users, self._store.disabled_users()
        for user, tenant in self._users - before:
            self._tell(user, tenant)
        return False
