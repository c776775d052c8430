"""Errors of the broadcast path that a caller can act on.

Fields go through ``args`` and text through ``__str__``, so each of them survives the
pickle between a Ray actor and its caller.
"""

from cluster.errors import ClusterError


class RealtimeError(ClusterError):
    """Any failure of the broadcast path."""


class InvalidChannelError(RealtimeError, ValueError):
    """A channel name that no consumer could subscribe to."""

    def __init__(self, channel: str, reason: str) -> None:
        super().__init__(channel, reason)
        self.channel = channel
        self.reason = reason

    def __str__(self) -> str:
        return f"channel {self.channel!r} {self.reason}"


class InvalidMessageError(RealtimeError, ValueError):
    """A message that cannot be encoded, or is larger than a publication may be."""

    def __init__(self, message_type: str, reason: str) -> None:
        super().__init__(message_type, reason)
        self.message_type = message_type
        self.reason = reason

    def __str__(self) -> str:
        return f"message of type {self.message_type!r} {self.reason}"


class HubUnavailableError(RealtimeError):
    """The hub did not answer in time; what was published may or may not have arrived.

    Repeating a publish is safe where its drafts carry a key.
    """

    def __init__(self, operation: str, waited_s: float, reason: str) -> None:
        super().__init__(operation, waited_s, reason)
        self.operation = operation
        self.waited_s = waited_s
        self.reason = reason

    def __str__(self) -> str:
        return f"hub did not answer {self.operation!r} within {self.waited_s:.1f} s: {self.reason}"


class HubNotFoundError(RealtimeError):
    """No hub runs on this Ray cluster."""

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        self.namespace = namespace

    def __str__(self) -> str:
        return f"no hub in the namespace {self.namespace!r}; is the floor up?"


class JournalUnavailableError(RealtimeError):
    """The journal did not take or give a record; the hub goes on from memory."""

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(operation, reason)
        self.operation = operation
        self.reason = reason

    def __str__(self) -> str:
        return f"journal failed to {self.operation}: {self.reason}"


class JournalLostError(RealtimeError):
    """The journal answers but has forgotten this hub; all of it must be written again."""

    def __init__(self, fence: int) -> None:
        super().__init__(fence)
        self.fence = fence

    def __str__(self) -> str:
        return f"journal does not know the hub with fence {self.fence} any more"


class FencedError(RealtimeError):
    """A younger hub has opened the journal; this one must stop."""

    def __init__(self, fence: int, youngest: int) -> None:
        super().__init__(fence, youngest)
        self.fence = fence
        self.youngest = youngest

    def __str__(self) -> str:
        return f"hub with fence {self.fence} was replaced by one with fence {self.youngest}"


class TransportError(RealtimeError):
    """A batch of broadcasts was not confirmed."""

    def __init__(self, transport: str, reason: str, is_final: bool, confirmed: int = 0) -> None:
        super().__init__(transport, reason, is_final, confirmed)
        self.transport = transport
        self.reason = reason
        self.is_final = is_final
        """True: a draft was refused, and repeating it cannot help."""
        self.confirmed = confirmed
        """How many drafts were confirmed before the refused one."""

    def __str__(self) -> str:
        return f"broadcast over {self.transport} failed: {self.reason}"


class HubFrameError(RealtimeError):
    """Bytes on the hub's socket that cannot be used; that connection ends."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the hub's socket carried {self.reason}"


class HubRefusedError(RealtimeError):
    """The hub's socket cannot answer this request; the hub's actor can, or says why not."""

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(operation, reason)
        self.operation = operation
        self.reason = reason

    def __str__(self) -> str:
        return f"the hub's socket does not answer {self.operation!r}: {self.reason}"


class UnreadablePayloadError(RealtimeError):
    """A payload in the journal that no key opens; the hub begins new epochs."""

    def __init__(self, key_id: str, reason: str) -> None:
        super().__init__(key_id, reason)
        self.key_id = key_id
        self.reason = reason

    def __str__(self) -> str:
        return f"a payload of the journal under key {self.key_id!r} cannot be read: {self.reason}"
