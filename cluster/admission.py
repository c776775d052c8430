"""Which waiting runs may begin, and what the others wait for.

Pure: lanes, runs and free resources in, decisions out. Invariants: a lane never holds
more runs than its concurrency; larger priority goes first and within a lane the older
run, so nobody is overtaken for a resource that both need.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cluster.lanes import Lane
from cluster.runs import Run, RunState

EPSILON = 1e-6
"""Resources are floats: 1/3 + 1/3 + 1/3 of a GPU is one."""

MAX_NAMED = 4

Holders = Callable[[str], Sequence[str]]
"""Names of what holds a resource, asked only when a run waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the cluster has."""

    total: Mapping[str, float]
    available: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one queued run."""

    run_id: str
    waits_for: str | None
    """None: it may begin."""


def in_order(queued: Sequence[Run]) -> list[Run]:
    """Return runs in the order in which they are considered."""
    return sorted(queued, key=lambda run: (-run.priority, run.created_at, run.id))


def needs(run: Run, lane: Lane) -> dict[str, float]:
    """Return what the run's worker group takes: its resources and one token of its lane."""
    return {**run.resources, lane.name: 1.0}


def admit(
    live: Sequence[Run], lanes: Mapping[str, Lane], capacity: Capacity | None, holders: Holders
) -> list[Decision]:
    """Decide on every queued run.

    Args:
        live: all runs that have not ended.
        lanes: by name.
        capacity: None when Ray did not say; then nobody is admitted.
        holders: who holds a resource.
    """
    admission = _Admission(live, lanes, capacity, holders)
    queued = in_order([run for run in live if run.state is RunState.QUEUED])
    return [Decision(run_id=run.id, waits_for=admission.decide(run)) for run in queued]


class _Admission:
    """One round: what is left after each decision."""

    def __init__(
        self, live: Sequence[Run], lanes: Mapping[str, Lane], capacity: Capacity | None, holders: Holders
    ) -> None:
        self._lanes = lanes
        self._capacity = capacity
        self._holders = holders
        holding = [run for run in live if run.state is not RunState.QUEUED]
        self._slots = {name: [run.id for run in holding if run.lane == name] for name in lanes}
        self._free = dict(capacity.available) if capacity else {}
        for run in holding:
            # Between the lease and the start of its workers, a run's resources look free to Ray.
            if run.state is RunState.STARTING:
                _take(self._free, needs(run, lanes[run.lane]))
        self._unpromised = dict(self._free)
        self._first_waiting: str | None = None

    def decide(self, run: Run) -> str | None:
        """Return what the next run in order waits for; None admits it."""
        lane = self._lanes[run.lane]
        slots = self._slots[lane.name]
        if len(slots) >= lane.concurrency:
            return f"waits for a slot of {lane.name}, held by {_and([f'run {holder}' for holder in slots])}"
        if self._capacity is None:
            return "waits for Ray to say what is free"
        wanted = needs(run, lane)
        for name in missing(wanted, self._capacity.total):
            # It keeps nothing, or what can never begin would stop everybody behind it.
            return f"waits for {wanted[name]:g} {name}, but the cluster has {self._capacity.total.get(name, 0.0):g}"
        lacking = missing(wanted, self._free)
        # Also what a run waits for is promised to it: the next one may have only what is left.
        _take(self._free, wanted)
        if not lacking:
            slots.append(run.id)
            _take(self._unpromised, wanted)
            return None
        name, amount = next(iter(lacking.items()))
        behind, self._first_waiting = self._first_waiting, self._first_waiting or run.id
        if not missing(wanted, self._unpromised):
            return f"waits behind run {behind}, which needs {name} too"
        return f"waits for {amount:g} {name} held by {_and(list(self._holders(name)) or ['others'])}"


def missing(wanted: Mapping[str, float], offered: Mapping[str, float]) -> dict[str, float]:
    """Return how much of what is wanted is not offered; empty when all is there."""
    return {
        name: amount - max(0.0, offered.get(name, 0.0))
        for name, amount in wanted.items()
        if amount > offered.get(name, 0.0) + EPSILON
    }


def _take(free: dict[str, float], wanted: Mapping[str, float]) -> None:
    for name, amount in wanted.items():
        free[name] = free.get(name, 0.0) - amount


def _and(names: Sequence[str]) -> str:
    shown = list(names[:MAX_NAMED])
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown)} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
