"""What a session wants done: frozen values that the owner of the socket performs in order.

Performs nothing. Invariant: every effect but ``Send``, ``Refuse``, ``Leave`` and ``Close``
is answered by exactly one call of the session, named in its docstring.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from realtime.publication import Publication, StreamPosition
from serve_apps import frames
from serve_apps.codes import CloseCode, ErrorCode


@dataclass(frozen=True, slots=True)
class Send:
    """Queue one line for the client."""

    line: bytes
    recovered: int = 0
    """Tally of the publications that it brings back (see ``ledger``)."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a command with an error."""

    command_id: int
    code: ErrorCode


@dataclass(frozen=True, slots=True)
class Attach:
    """Find out where channels stand and what was missed; the answer goes to ``on_attached``."""

    command_id: int
    """0: no command asked for it, the server subscribes the client."""
    wanted: Mapping[str, StreamPosition | None]
    """Channel -> position to recover from; None: from now on."""
    is_connect: bool
    strict_recovery: bool = False


@dataclass(frozen=True, slots=True)
class Follow:
    """Let the channel's publications after ``position`` flow."""

    channel: str
    position: StreamPosition


@dataclass(frozen=True, slots=True)
class Leave:
    """Stop the channel's publications."""

    channel: str


@dataclass(frozen=True, slots=True)
class ReadHistory:
    """Fetch a channel's history; the answer goes to ``on_history``."""

    command: frames.History


@dataclass(frozen=True, slots=True)
class Publish:
    """Give what a client publishes to the hub; the answer goes to ``on_answer``."""

    method: ClassVar[str] = "publish"
    command: frames.Publish
    info: bytes
    """Who publishes, as one JSON object."""


@dataclass(frozen=True, slots=True)
class ReadPresence:
    """Ask the hub who is in a channel; the answer goes to ``on_answer``."""

    command: frames.Presence
    limit: int
    """Members to name; 0: only count them."""

    @property
    def method(self) -> str:
        """Name of the command, which is the key of its answer."""
        return "presence_stats" if self.command.stats_only else "presence"


@dataclass(frozen=True, slots=True)
class Call:
    """Call a method; the answer goes to ``on_answer``."""

    method: ClassVar[str] = "rpc"
    command: frames.Rpc


@dataclass(frozen=True, slots=True)
class Close:
    """End the socket, after what was queued before."""

    code: CloseCode


Question = Publish | ReadPresence | Call
Effect = Send | Refuse | Attach | Follow | Leave | ReadHistory | Question | Close


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where a channel stands, and what a client missed of it."""

    channel: str
    position: StreamPosition
    publications: tuple[Publication, ...] = ()
    recovered: bool = False
