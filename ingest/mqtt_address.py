"""Where the MQTT broker is and how to speak to it, from one URL.

    mqtt://user:password@host:1883            MQTT 3.1.1
    mqtts://host:8883?version=5&ca=ca.pem     MQTT 5 over TLS, with a certificate authority of one's own

Pure; invariant: an address that exists has been checked.
"""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from cluster.errors import SettingsError

DEFAULT_PORT = 1883
DEFAULT_TLS_PORT = 8883

Version = Literal["3.1.1", "5"]


@dataclass(frozen=True, slots=True)
class MqttAddress:
    """One broker."""

    host: str
    port: int
    version: Version
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
        version = options.get("version", "3.1.1")
        if version != "3.1.1" and version != "5":
            raise SettingsError("MQTT_URL", shown, f"version must be 3.1.1 or 5, got {version}")
        has_tls = parts.scheme == "mqtts"
        if "ca" in options and not has_tls:
            raise SettingsError("MQTT_URL", shown, "ca has no effect without mqtts://")
        return cls(
            host=parts.hostname,
            port=port or (DEFAULT_TLS_PORT if has_tls else DEFAULT_PORT),
            version="5" if version == "5" else "3.1.1",
            username=unquote(parts.username) if parts.username is not None else None,
            password=unquote(parts.password) if parts.password is not None else None,
            has_tls=has_tls,
            ca_path=options.get("ca"),
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"
