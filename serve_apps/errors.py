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


class NotAllowedError(GatewayError):
    """A channel's token proves no right to that channel for this identity."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class KeysUnavailableError(AuthenticationError):
    """The identity provider's keys are not here yet; the same token may be good in a moment."""

    def __init__(self) -> None:
        super().__init__("the identity provider's keys are not known yet, try again")

    def __reduce__(self) -> tuple[type["KeysUnavailableError"], tuple[()]]:
        return (KeysUnavailableError, ())


class RunLookupError(GatewayError):
    """The SQL store did not say whose run it is; the client is told to try again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the tenant of a run is not known: {self.reason}"


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


class FloorFolderError(GatewayError):
    """A folder that the floor needs cannot be used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} cannot be used: {self.reason}"


class FloorRunningError(GatewayError):
    """The data folder already has a running floor."""

    def __init__(self, url: str, pid: int) -> None:
        super().__init__(url, pid)
        self.url = url
        self.pid = pid

    def __str__(self) -> str:
        return f"this floor already runs (process {self.pid}): {self.url or 'it is starting'}"


class BindRefusedError(GatewayError):
    """The floor would listen beyond this machine with a key that only it knows."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host

    def __str__(self) -> str:
        return (
            f"WATCHFLOOR_HTTP_HOST={self.host} is not a loopback address and no credentials are configured: "
            "set WATCHFLOOR_SECRET_FILE to a file with at least 32 random bytes that signs the users' tokens"
        )


class FloorStartError(GatewayError):
    """The floor did not come up; the text says which part and why."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(part, reason)
        self.part = part
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.part}: {self.reason}"


class OutboxError(GatewayError):
    """A connection cannot keep up: its replies or its channels passed their bound."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the connection fell behind: {self.what}"


class FeedDeadError(GatewayError):
    """The replica's poll loop has ended; Serve should replace the replica."""
