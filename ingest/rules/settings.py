"""Where the floor's rules are, and how much is kept for them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesSettings:
    """Threshold, rate and absence rules; docs/rules.md says what the file holds."""

    file: str = ""
    """YAML file of the rules, on the machine of the detector; empty: no rules. It is read again when it changes."""
    max_series: int = 10_000
    """Series that rules watch; beyond it the one longest silent leaves. About 2 KiB of memory each."""
    poll_s: float = 1.0
    """How often the file and the time that absence rules go by are looked at, in seconds."""

    def __post_init__(self) -> None:
        if self.max_series < 1:
            raise ValueError(f"max_series must be at least 1, got {self.max_series}")
        if not 0 < self.poll_s <= 60:
            raise ValueError(f"poll_s must be above 0 and at most 60, got {self.poll_s}")
