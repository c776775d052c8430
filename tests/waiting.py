"""Waiting for what happens in another thread or process."""

import time
from collections.abc import Callable


def eventually(check: Callable[[], bool], within_s: float = 30.0, every_s: float = 0.1) -> bool:
    """Tell whether ``check`` comes true in time."""
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at:
        if check():
            return True
        time.sleep(every_s)
    return check()
