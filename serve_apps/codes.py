"""The numbers a client is told: errors of commands, ends of subscriptions, ends of sockets.

Centrifuge's own, so that its SDKs act on them. Invariant: every code has a text, because
the JavaScript SDK takes a final close without a reason for one it should reconnect after.
"""

from enum import IntEnum


class _Code(IntEnum):
    """A number with the text that is sent beside it."""

    reason: str

    def __new__(cls, value: int, reason: str) -> "_Code":
        code = int.__new__(cls, value)
        code._value_ = value
        code.reason = reason
        return code


class ErrorCode(_Code):
    """Answers to a command; the connection goes on, except after a refused connect."""

    INTERNAL = 100, "internal server error"
    UNKNOWN_CHANNEL = 102, "unknown channel"
    PERMISSION_DENIED = 103, "permission denied"
    METHOD_NOT_FOUND = 104, "method not found"
    ALREADY_SUBSCRIBED = 105, "already subscribed"
    LIMIT_EXCEEDED = 106, "limit exceeded"
    BAD_REQUEST = 107, "bad request"
    NOT_AVAILABLE = 108, "not available"
    TOKEN_EXPIRED = 109, "token expired"
    EXPIRED = 110, "expired"
    TOO_MANY_REQUESTS = 111, "too many requests"
    UNRECOVERABLE_POSITION = 112, "unrecoverable position"

    @property
    def is_temporary(self) -> bool:
        """True when the same command may succeed later; the SDK then repeats it by itself."""
        return self in {ErrorCode.INTERNAL, ErrorCode.TOO_MANY_REQUESTS}


class UnsubscribeCode(_Code):
    """Ends of one subscription; from 2500 on the SDK subscribes again."""

    SERVER_UNSUBSCRIBE = 2000, "server unsubscribe"
    INSUFFICIENT_STATE = 2500, "insufficient state"
    SUBSCRIPTION_EXPIRED = 2501, "subscription expired"


class CloseCode(_Code):
    """Ends of a socket: below 3500 the SDK reconnects, from 3500 to 3999 it does not."""

    MESSAGE_TOO_BIG = 1009, "message size limit exceeded"
    CONNECTION_CLOSED = 3000, "connection closed"
    SHUTDOWN = 3001, "shutdown"
    INTERNAL = 3004, "internal server error"
    EXPIRED = 3005, "connection expired"
    SLOW = 3008, "slow"
    WRITE_ERROR = 3009, "write error"
    INSUFFICIENT_STATE = 3010, "insufficient state"
    FORCE_RECONNECT = 3011, "force reconnect"
    NO_PONG = 3012, "no pong"
    TOO_MANY_REQUESTS = 3013, "too many requests"
    INVALID_TOKEN = 3500, "invalid token"
    BAD_REQUEST = 3501, "bad request"
    STALE = 3502, "stale"
    FORCE_DISCONNECT = 3503, "force disconnect"
    CONNECTION_LIMIT = 3504, "connection limit"
    CHANNEL_LIMIT = 3505, "channel limit"
    INAPPROPRIATE_PROTOCOL = 3506, "inappropriate protocol"

    @classmethod
    def numbered(cls, number: int) -> "CloseCode | None":
        """Return the code of a number; None: there is none."""
        return next((code for code in cls if code == number), None)

    @property
    def is_final(self) -> bool:
        """True when the SDK does not reconnect."""
        return self == CloseCode.MESSAGE_TOO_BIG or 3500 <= self <= 3999
