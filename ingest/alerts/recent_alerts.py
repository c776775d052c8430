"""The latest occurrence of problems as one process left it, so that a repetition need not be looked up.

Pure state, safe for threads. Nobody may take it for the truth: whoever writes what follows from
it lets the store refuse what others changed meanwhile.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from ingest.alerts.model import Alert

RECENT_ALERTS = 4096
"""Alerts remembered; those used longest ago go first."""


class RecentAlerts:
    """Alerts by their fingerprint."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alerts: OrderedDict[str, Alert] = OrderedDict()

    def of(self, fingerprints: Iterable[str]) -> dict[str, Alert]:
        """Return those that are remembered."""
        with self._lock:
            return {one: self._alerts[one] for one in fingerprints if one in self._alerts}

    def keep(self, left: Mapping[str, Alert]) -> None:
        """Remember alerts as a commit left them."""
        with self._lock:
            for one, alert in left.items():
                self._alerts[one] = alert
                self._alerts.move_to_end(one)
            while len(self._alerts) > RECENT_ALERTS:
                self._alerts.popitem(last=False)

    def forget(self, fingerprints: Iterable[str]) -> None:
        """Forget those that somebody else has changed."""
        with self._lock:
            for one in fingerprints:
                self._alerts.pop(one, None)
