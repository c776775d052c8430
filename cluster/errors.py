"""Root of the project's errors, and those of the cluster folder.

Fields go through ``args`` and text through ``__str__``: an error crosses processes by
pickle, and a formatted ``super().__init__`` would not survive it.
"""


class ClusterError(Exception):
    """Any failure that the project itself names."""


class SettingsError(ClusterError):
    """A setting has a value that cannot be used."""

    def __init__(self, name: str, value: str, reason: str) -> None:
        super().__init__(name, value, reason)
        self.name = name
        self.value = value
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}={self.value!r}: {self.reason}"


class ServiceUnavailableError(ClusterError):
    """A service the floor depends on cannot be reached."""

    def __init__(self, service: str, address: str, reason: str) -> None:
        super().__init__(service, address, reason)
        self.service = service
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.service} at {self.address} cannot be reached: {self.reason}"
