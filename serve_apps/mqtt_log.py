"""What the embedded broker's log says about clients that it turned away.

Reads the end of the file only. Invariant: never raises; a log that cannot be read means
that nobody is known to have been refused.
"""

import re
from pathlib import Path

TAIL_BYTES = 64 * 1024
_REFUSED = re.compile(r"\[ERR\] (\S+) - mid:\d+ - \"(.*?)\" - unacceptable protocol version of 5")


def refused_clients(log_path: Path, limit: int = 3) -> list[str]:
    """Return the hosts or client ids of MQTT 5 clients seen lately, newest last."""
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    # The broker refuses before it has read the id, so most often only the address is known.
    names = [match[2] or match[1].rpartition(":")[0] for match in _REFUSED.finditer(text)]
    return list(dict.fromkeys(names))[-limit:]
