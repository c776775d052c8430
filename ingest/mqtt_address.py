"""Where the MQTT broker is and how to speak to it, from one URL.

    mqtt://user:password@host:1883            MQTT 5 where the broker has it, else 3.1.1
    mqtts://host:8883?version=5&ca=ca.pem     MQTT 5 over TLS, with a certificate authority of one's own

Pure; invariant: an address that exists has been checked.
"""

from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from cluster.errors import SettingsError

DEFAULT_PORT = 1883
DEFAULT_TLS_PORT = 8883
CLOSED_BEFORE_3_1_1 = 2

Version = Literal["3.1.1", "5"]
Wanted = Literal["auto", "3.1.1", "5"]
_VERSIONS: dict[str, Wanted] = {"auto": "auto", "3.1.1": "3.1.1", "5": "5"}


@dataclass(frozen=True, slots=True)
class MqttAddress:
    """One broker."""

    host: str
    port: int
    version: Wanted
    """``auto``: whoever receives negotiates it (see ``VersionChoice``), whoever only sends speaks 3.1.1."""
    username: str | None
    password: str | None
    has_tls: bool
    ca_path: str | None

    @classmethod
    def parse(cls, url: str) -> "MqttAddress":
        """Return the address in ``url``.

        Raises:
            SettingsError: it is none; the text never shows the password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise SettingsError("MQTT_URL", "(not a URL)", str(error)) from error
        options = dict(parse_qsl(parts.query))
        shown = f"{parts.scheme}://{parts.hostname or ''}"
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
            raise SettingsError("MQTT_URL", shown, "must be mqtt://host:port or mqtts://host:port")
        unknown = options.keys() - {"version", "ca"}
        if unknown:
            raise SettingsError("MQTT_URL", shown, f"unknown option {', '.join(sorted(unknown))}; known: version, ca")
        version = _VERSIONS.get(options.get("version", "auto"))
        if version is None:
            raise SettingsError("MQTT_URL", shown, f"version must be auto, 3.1.1 or 5, got {options['version']}")
        has_tls = parts.scheme == "mqtts"
        if "ca" in options and not has_tls:
            raise SettingsError("MQTT_URL", shown, "ca has no effect without mqtts://")
        return cls(
            host=parts.hostname,
            port=port or (DEFAULT_TLS_PORT if has_tls else DEFAULT_PORT),
            version=version,
            username=unquote(parts.username) if parts.username is not None else None,
            password=unquote(parts.password) if parts.password is not None else None,
            has_tls=has_tls,
            ca_path=options.get("ca"),
        )

    def speaking(self, version: Wanted) -> "MqttAddress":
        """Return the same broker with another version."""
        return replace(self, version=version)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class VersionChoice:
    """Which MQTT version to speak next with one broker: 5, and 3.1.1 where 5 is refused.

    A broker that has 3.1.1 only need not say so: nats-server closes the connection without an
    answer, which a broker that is just starting does as well. So 5 is given up after two
    such endings in a row, and a 3.1.1 that is refused leads back to 5.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._closed = 0
        self._was_5_accepted = False
        self.version: Version = "3.1.1" if wanted == "3.1.1" else "5"

    @property
    def is_free(self) -> bool:
        """Say whether the version may change."""
        return self._wanted == "auto"

    def accepted(self) -> None:
        """The broker answered with yes."""
        self._closed = 0
        self._was_5_accepted = self.version == "5"

    def refused(self, *, is_explicit: bool) -> None:
        """The connection ended before the broker said yes.

        Args:
            is_explicit: it named the version as the reason.
        """
        if self._wanted != "auto":
            return
        self._closed += 1
        if self.version == "3.1.1":
            self.version = "5"
        elif is_explicit or (self._closed >= CLOSED_BEFORE_3_1_1 and not self._was_5_accepted):
            self.version = "3.1.1"
        else:
            return
        self._closed = 0
