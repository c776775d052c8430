"""Which tenant a run belongs to, as far as this replica has asked.

Decides nothing; who may see a run is ``authorisation.py``'s. Invariant: what ``known`` says
is true for ever, as a run never changes its tenant; a run that is not in it is nobody's.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from sqlalchemy.exc import SQLAlchemyError

from serve_apps.errors import RunLookupError

RUN_PREFIX = "run:"
MAX_KNOWN = 50_000
AT_ONCE = 8
"""Lookups at a time: a client that asks for invented runs must not take all threads."""
TIMEOUT_S = 3.0


class RunTenants:
    """The tenants of runs, looked up once each."""

    def __init__(self, find: Callable[[Sequence[str]], Mapping[str, str | None]]) -> None:
        """``find`` reads the tenants of runs, leaving out those that do not exist; it is called in a thread."""
        self._find = find
        self._known: OrderedDict[str, str | None] = OrderedDict()
        self._slots = asyncio.Semaphore(AT_ONCE)

    @property
    def known(self) -> Mapping[str, str | None]:
        """Run id -> its tenant; None: it belongs to the floor."""
        return self._known

    async def learn(self, tenant: str | None, channels: Iterable[str]) -> None:
        """Find out whose runs ``channels`` are about; a run that does not exist stays unknown.

        Args:
            tenant: who wants to know; None: nobody of a tenant, who may see every run or none,
                so that nothing need be looked up.
            channels: names of channels, of other kinds too.

        Raises:
            RunLookupError: the store did not answer in time.
        """
        if tenant is None:
            return
        runs = [name.removeprefix(RUN_PREFIX) for name in channels if is_about_a_run(name)]
        for run_id in runs:
            if run_id in self._known:
                self._known.move_to_end(run_id)
        # One that was not found is asked for again: it may be registered a moment later.
        unknown = [run_id for run_id in runs if run_id not in self._known]
        if not unknown:
            return
        try:
            async with asyncio.timeout(TIMEOUT_S), self._slots:
                found = await asyncio.to_thread(self._find, unknown)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise RunLookupError(type(error).__name__) from error
        self._known.update(found)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


def is_about_a_run(channel: str) -> bool:
    """Tell whether a channel is one run's."""
    return channel.startswith(RUN_PREFIX)


def no_runs(_run_ids: Sequence[str]) -> Mapping[str, str | None]:
    """Find nothing: where no store is at hand no tenant's user sees a run."""
    return {}
