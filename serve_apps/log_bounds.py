"""Bounds the logs of the floor's children, which write for as long as the floor lives.

Knows nothing of who writes. Invariant: a log and the one older part of it that is kept take
twice ``LOG_BYTES``, and what was written between two calls.
"""

import os
import shutil
from pathlib import Path

LOG_BYTES = 10 * 1024 * 1024
"""As the broker bounds its own log; Ray does the same for those in its session folder."""


def bound_logs(folder: Path, max_bytes: int = LOG_BYTES) -> None:
    """Put aside what each ``*.log`` above ``max_bytes`` holds, in place of what was put aside before.

    By copy, because the writers keep their files open; they append, so an emptied file goes on
    at its beginning. Lines written during the copy are lost.
    """
    for path in folder.glob("*.log"):
        if path.stat().st_size > max_bytes:
            shutil.copy2(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)
