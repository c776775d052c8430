"""Errors of the gateway and its API.

Fields go through ``args`` and text through ``__str__`` (see ``cluster.errors``). Error and
close codes that travel to clients are in ``codes.py``.
"""

from cluster.errors import ClusterError


class GatewayError(ClusterError):
    """Any failure the gateway names."""


class AuthenticationError(GatewayError):
    """A token, cookie or sign-in link proves nobody's identity."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class TokenExpiredError(AuthenticationError):
    """The token was good once; the client should fetch a new one."""

    def __init__(self) -> None:
        super().__init__("token expired")

    def __reduce__(self) -> tuple[type["TokenExpiredError"], tuple[()]]:
        return (TokenExpiredError, ())


class FrameError(GatewayError):
    """A client's frame is no command of the protocol; its connection is closed with 3501."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class FeedUnavailableError(GatewayError):
    """The hub did not answer in time; the client is told to try again."""

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(operation, reason)
        self.operation = operation
        self.reason = reason

    def __str__(self) -> str:
        return f"hub: {self.operation} failed: {self.reason}"
