"""The floor's topic tree: which topic is which, and how one is built.

    {root}/{tenant}/{device}/telemetry    readings
    {root}/{tenant}/{device}/alert        alerts that the device raises itself
    {root}/{tenant}/{device}/state        retained birth, and the last will
    {root}/{tenant}/{device}/cmd          commands to the device
    {root}/{tenant}/{device}/cmd/ack      their acknowledgements

Pure: no MQTT client. Invariant: ``parse(build(x)) == x``, and nothing else parses; levels
are ``[A-Za-z0-9_-]{1,64}`` because nats-server drops the connection of a client that
names a level with a space or a dot.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

LEVEL = r"[A-Za-z0-9_-]{1,64}"
CACHE_LIMIT = 65_536
"""Topics remembered after parsing; beyond it the memory starts afresh, so strangers cannot fill it."""

_LEVEL = re.compile(LEVEL)


class TopicClass(StrEnum):
    """What a message on a topic is; also a metric's label."""

    TELEMETRY = "telemetry"
    ALERT = "alert"
    STATE = "state"
    COMMAND = "cmd"
    COMMAND_ACK = "cmd/ack"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the tree, taken apart."""

    kind: TopicClass
    tenant: str
    device: str


def is_level(text: str) -> bool:
    """Say whether ``text`` may be a tenant or a device."""
    return _LEVEL.fullmatch(text) is not None


class TopicTree:
    """The topics under one root."""

    def __init__(self, root: str) -> None:
        if not is_level(root):
            raise ValueError(f"topic root must be 1-64 of [A-Za-z0-9_-], got {root!r}")
        kinds = "|".join(re.escape(kind) for kind in TopicClass)
        self.root = root
        self._pattern = re.compile(f"{re.escape(root)}/({LEVEL})/({LEVEL})/({kinds})")
        self._parsed: dict[str, Topic] = {}

    @property
    def everything(self) -> str:
        """Filter of all topics of the tree, also those that match no template."""
        return f"{self.root}/#"

    @property
    def states(self) -> str:
        """Filter of the presence topics."""
        return f"{self.root}/+/+/{TopicClass.STATE}"

    def parse(self, topic: str) -> Topic | None:
        """Return the topic's parts, or None when it is not one of the tree."""
        known = self._parsed.get(topic)
        if known is not None:
            return known
        match = self._pattern.fullmatch(topic)
        if match is None:
            return None
        if len(self._parsed) >= CACHE_LIMIT:
            self._parsed.clear()
        parsed = Topic(TopicClass(match[3]), tenant=match[1], device=match[2])
        self._parsed[topic] = parsed
        return parsed

    def build(self, kind: TopicClass, tenant: str, device: str) -> str:
        """Return the topic's text.

        Raises:
            ValueError: the tenant or the device is not a topic level of ours.
        """
        for name, level in (("tenant", tenant), ("device", device)):
            if not is_level(level):
                raise ValueError(f"{name} must be 1-64 of [A-Za-z0-9_-], got {level[:80]!r}")
        return f"{self.root}/{tenant}/{device}/{kind}"
