"""Which part of the topic tree each of several ingest actors receives.

Pure. A broker with shared subscriptions deals the messages out itself. One without them
(nats-server) gets disjoint filters by tenant, and the first actor listens to everything all
the same: a tenant that no list names is stored by it and not lost. Invariant: every topic of
the tree is received by somebody, whatever the settings say.
"""

from dataclasses import dataclass, field

from ingest.topics import TopicTree, is_level

GROUP = "watchfloor"
SHARED = "$share/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one of the actors does."""

    filters: tuple[str, ...]
    tenants: frozenset[str] = frozenset()
    """Whose messages it has to itself, where the broker does not deal them out."""
    elsewhere: dict[str, int] = field(default_factory=dict)
    """Tenants that this actor receives and another one stores, with the number of the other."""


def client_id(name: str, index: int) -> str:
    """Return the fixed client id of an actor: the broker keeps a session under it."""
    return f"{name}-{index}"


def index_of(name: str, client: str) -> int | None:
    """Return the number in ``client_id(name, number)``; None for another client's id."""
    head, _, number = client.rpartition("-")
    return int(number) if head == name and number.isascii() and number.isdigit() else None


def check_tenants(tenants: tuple[str, ...]) -> None:
    """Raise ValueError unless these can be dealt out."""
    if len(set(tenants)) != len(tenants):
        raise ValueError("a tenant is named twice")
    for tenant in tenants:
        if not is_level(tenant):
            raise ValueError(f"a tenant must be 1-64 of [A-Za-z0-9_-], got {tenant[:80]!r}")


def share_of(tree: TopicTree, index: int, actors: int, tenants: tuple[str, ...], *, has_shared: bool) -> Share:
    """Return the share of actor ``index`` of ``actors``.

    Args:
        tenants: dealt out in turn from the second actor on, where the broker does not do it.
        has_shared: whether the broker has shared subscriptions.
    """
    if actors == 1:
        return Share(filters=(tree.everything,))
    if has_shared:
        return Share(filters=(f"{SHARED}{GROUP}/{tree.everything}",))
    owners = {tenant: number % actors for number, tenant in enumerate(tenants, start=1)}
    if index == 0:
        return Share(filters=(tree.everything,), elsewhere={name: owner for name, owner in owners.items() if owner})
    own = [tenant for tenant, owner in owners.items() if owner == index]
    return Share(filters=tuple(f"{tree.root}/{tenant}/#" for tenant in own), tenants=frozenset(own))
