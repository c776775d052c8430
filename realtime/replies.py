"""What the hub answers to its readers.

Plain frozen values; no behaviour.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from realtime.publication import Publication, StreamPosition


@dataclass(frozen=True, slots=True)
class Cursor:
    """A reader's place in the hub's log of all channels."""

    hub_epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class PollReply:
    """What was published on any channel since the reader's cursor."""

    cursor: Cursor
    """Where the next poll goes on."""
    publications: tuple[Publication, ...]
    """In the order of publishing. Complete since the last cursor unless ``gap``."""
    gap: bool
    """True: publications were missed; each channel must be resynchronised by ``history``."""
    coalesced: int = 0
    """Publications that this reader was spared because a newer one took their place."""
    wants_all: str = ""
    """Lease under which this gateway's next poll shall say all that it follows: until then it is sent everything."""


@dataclass(frozen=True, slots=True)
class HistoryReply:
    """Publications of one channel, and where its stream stands."""

    publications: tuple[Publication, ...]
    """Ascending offsets. Empty when a position was given and cannot be recovered."""
    position: StreamPosition
    """Top of the stream at the moment of the reply."""
    recovered: bool
    """True: with ``publications`` the reader has everything since the position it gave."""


class JournalHealth(StrEnum):
    """How the hub's memory beyond its process is doing."""

    OK = "ok"
    AWAY = "away"
    """Broadcasting goes on from memory; a restart now would begin a new epoch."""
    NONE = "none"
    """No Redis or Valkey is configured: every restart begins a new epoch."""


@dataclass(frozen=True, slots=True)
class HubStats:
    """Figures of the hub since its process started."""

    epoch: str
    """Life of the log of all channels."""
    started_at_s: float
    channels: int
    publications_total: int
    duplicates_total: int
    """Drafts whose key was known and that were therefore not published again."""
    coalesced_total: int
    """Publications whose place a newer one took while they were still held."""
    channels_evicted_total: int
    """Channels forgotten because there were too many."""
    history_bytes: int
    log_size: int
    pollers: int
    """Readers waiting in a poll now."""
    journal: JournalHealth
    journal_lag: int
    """Publications that the journal has not confirmed yet."""
    publications_by_class: dict[tuple[str, str], int]
    """Publications by (channel kind, priority)."""
    presence_members: int = 0
    """Members of all channels, as the gateways report them."""
    presence_refused_total: int = 0
    """Members not held because there were too many."""
    calls_by_way: dict[str, int] = field(default_factory=dict)
    """Calls that came over the hub's Unix socket (``socket``) and over its actor (``actor``)."""
    connections: int = 0
    """Connections on the socket now."""
    connections_ended: dict[str, int] = field(default_factory=dict)
    """Connections that the hub ended, by reason."""

    @property
    def journal_ok(self) -> bool:
        """False while publications are held in memory only although a journal is configured."""
        return self.journal is not JournalHealth.AWAY
