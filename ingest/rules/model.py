"""What a rule is: which series it watches, when it fires and clears, and what the alert says.

Pure types; ``parse.py`` makes them from a file, ``evaluator.py`` judges readings by them.
Invariant: a rule has passed every check of the parser, so its numbers are finite, its clear
level lies on the good side of its raise level, and its templates name known fields only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from string import Formatter

from ingest.alerts.model import Severity

FIELDS = ("rule", "tenant", "site", "device", "metric", "value", "threshold", "clear", "duration", "severity")
"""What a title or a text may name in braces."""
NUMBERS = ("value", "threshold", "clear")
"""Those of them that take a format: ``{value:.1f}``."""
FORMAT = re.compile(r"\.[0-9][fge]")
ANY = ("*",)
"""Globs that every name meets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A level with hysteresis: raise on one side of it, clear beyond the other."""

    raise_at: float
    clear_at: float
    """Equal to ``raise_at`` without hysteresis."""
    is_upper: bool
    """True: high values are bad."""

    def is_bad(self, value: float) -> bool:
        """Tell whether ``value`` may raise."""
        return value > self.raise_at if self.is_upper else value < self.raise_at

    def is_good(self, value: float) -> bool:
        """Tell whether ``value`` may clear: between the two levels neither happens."""
        if self.clear_at == self.raise_at:
            return not self.is_bad(value)
        return value < self.clear_at if self.is_upper else value > self.clear_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Fires while the value is beyond a level."""

    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Fires while the value changes too fast: its mean slope over the last ``over_s``."""

    level: Level
    """In units of the value per ``per_s``."""
    per_s: float
    over_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """Fires when nothing has arrived for ``after_s``."""

    after_s: float


Condition = Threshold | Rate | Absence


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A text with fields in braces, taken apart when the file was read: formatting it runs no code."""

    parts: tuple[tuple[str, str | None, str], ...]
    """(text, field or None, format)."""

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Take a template apart.

        Raises:
            ValueError: braces do not match, a field is unknown, or a format is none of ours.
        """
        try:
            found = list(Formatter().parse(text))
        except ValueError as error:
            raise ValueError(
                f"has braces that do not match ({error}); a brace itself is written {{{{ or }}}}"
            ) from None
        parts = []
        for literal, name, spec, conversion in found:
            if name is not None and name not in FIELDS:
                raise ValueError(f"names the field {{{name}}}; there are {', '.join(FIELDS)}")
            if conversion or (spec and (name not in NUMBERS or not FORMAT.fullmatch(spec))):
                raise ValueError(f"formats {{{name}}}; only numbers take one, such as {{value:.1f}}")
            parts.append((literal, name, spec or ""))
        return cls(parts=tuple(parts))

    def format(self, values: Mapping[str, str | float | None]) -> str:
        """Return the text with its fields filled in; a value that is missing is shown as a dash."""
        return "".join(
            literal + ("" if name is None else shown(values.get(name), spec)) for literal, name, spec in self.parts
        )


def shown(value: str | float | None, spec: str = "") -> str:
    """Return a value as people read it."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else format(value, spec or ".6g")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of the file."""

    name: str
    condition: Condition
    metric: tuple[str, ...]
    """Globs of metrics; empty: the device as a whole (absence only)."""
    tenant: tuple[str, ...] = ANY
    site: tuple[str, ...] = ANY
    """Anything but ``*`` leaves out devices whose site the directory does not know."""
    device: tuple[str, ...] = ANY
    for_s: float = 0.0
    """How long the value must be bad before the alert is raised, in device time."""
    clear_for_s: float = 0.0
    """How long it must be good before it clears."""
    severity: Severity = Severity.WARNING
    title: Template
    text: Template
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """``threshold``, ``rate`` or ``absence``."""
        return type(self.condition).__name__.lower()

    @property
    def is_of_device(self) -> bool:
        """True: it watches devices as a whole."""
        return not self.metric

    @property
    def judges(self) -> tuple[object, ...]:
        """What decides when it fires; two rules that agree in it differ in words only."""
        return (self.condition, self.for_s, self.clear_for_s)

    def watches(self, tenant: str, device: str, metric: str, site: str | None) -> bool:
        """Tell whether the rule is about this series; ``metric`` empty: the device as a whole."""
        globs = self._globs
        return (
            self.is_of_device == (metric == "")
            and globs["tenant"].fullmatch(tenant) is not None
            and globs["device"].fullmatch(device) is not None
            and (self.is_of_device or globs["metric"].fullmatch(metric) is not None)
            and (self.site == ANY or (site is not None and globs["site"].fullmatch(site) is not None))
        )

    @cached_property
    def _globs(self) -> dict[str, re.Pattern[str]]:
        names = ("tenant", "site", "device", "metric")
        return {name: re.compile("|".join(translate(glob) for glob in getattr(self, name))) for name in names}


def duration_text(seconds: float) -> str:
    """Return a length of time as the file writes it: ``90s``, ``5m``, ``2h``, ``1d``."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
