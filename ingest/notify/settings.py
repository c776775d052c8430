"""Where alerts are told outside the floor, and how hard that is tried."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

MIN_SECRET_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """A signed POST for each change of an alert, in the form of Standard Webhooks."""

    url: str = ""
    """Where changes of alerts are POSTed, ``http://`` or ``https://``; empty: nowhere. Redirects are not followed."""
    secret: tuple[str, ...] = field(default=(), repr=False)
    """Keys of the signature, comma-separated, ``whsec_`` and base64 of 24-64 bytes each; a message carries a signature
    by every one of them, so that a receiver may change its key in between."""
    secret_file: str = ""
    """File with such keys, one a line, in place of ``secret``."""
    actions: tuple[str, ...] = (
        "raised", "reopened", "escalated", "escalated_to", "went_stale", "cleared", "acknowledged", "ack_expired",
        "closed", "unsuppressed",
    )  # fmt: skip
    """Changes that are told, comma-separated; the words are those of an alert's history."""
    timeout_s: float = 10.0
    """Longest time of one try, in seconds."""
    max_attempts: int = 20
    """Tries after which a message becomes a dead letter."""
    max_age_s: float = 86_400.0
    """Age at which it becomes one, in seconds."""
    first_pause_s: float = 1.0
    """Longest pause after the first try; it doubles with each further one, and each is drawn from 0 to that."""
    longest_pause_s: float = 600.0
    """Bound of that doubling, in seconds."""
    at_once: int = 8
    """Messages under way at a time; of one alert only one."""
    max_pending: int = 10_000
    """Messages that wait; beyond it further changes wait in the history of alerts."""

    def __post_init__(self) -> None:
        _check_url("url", self.url)
        if self.secret and self.secret_file:
            raise ValueError("secret and secret_file exclude each other")
        if self.url and not (self.secret or self.secret_file):
            raise ValueError("a webhook needs secret or secret_file: an unsigned one proves nothing to its receiver")
        for name in ("timeout_s", "max_age_s", "first_pause_s", "longest_pause_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("max_attempts", "at_once", "max_pending"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def secrets(self) -> tuple[str, ...]:
        """Return the keys, from the file where one is named.

        Raises:
            OSError: the file cannot be read.
        """
        if not self.secret_file:
            return self.secret
        lines = Path(self.secret_file).read_text(encoding="ascii").splitlines()
        return tuple(line.strip() for line in lines if line.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertmanagerSettings:
    """An Alertmanager that routes and pages: it is told what is firing, again and again."""

    url: str = ""
    """Address of the Alertmanager, such as ``http://alertmanager:9093``; empty: none. ``/api/v2/alerts`` is added."""
    token_file: str = ""
    """File with a bearer token for it; empty: none."""
    resend_s: float = 60.0
    """Pace at which firing alerts are repeated, in seconds; it takes one for over after four times as long."""
    timeout_s: float = 10.0
    """Longest time of one request, in seconds."""
    batch: int = 200
    """Alerts of one request."""
    resolved_s: float = 900.0
    """How long the end of an alert is repeated, in seconds."""
    floor_url: str = ""
    """Address of this floor's page, for the link back; empty: none."""

    def __post_init__(self) -> None:
        _check_url("url", self.url)
        _check_url("floor_url", self.floor_url)
        for name in ("resend_s", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        if self.resolved_s < self.resend_s:
            raise ValueError("resolved_s must be at least resend_s, or an end would never be repeated")

    def token(self) -> str | None:
        """Return the token, or None.

        Raises:
            OSError: the file cannot be read.
        """
        return Path(self.token_file).read_text(encoding="ascii").strip() if self.token_file else None


def _check_url(name: str, url: str) -> None:
    if not url:
        return
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        # Without the value: an address may hold a password.
        raise ValueError(f"{name} must be http://host... or https://host...")
