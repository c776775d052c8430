"""What the disk itself takes: the figure beside every durable one."""

import os
import statistics
import time
from pathlib import Path

WRITES = 100
BLOCK = b"x" * 4096


def fdatasync_p50_ms(folder: Path) -> float:
    """Return the median time in milliseconds of making 4 KiB durable in ``folder``."""
    times = []
    with (folder / "probe").open("wb") as file:
        for _ in range(WRITES):
            file.write(BLOCK)
            file.flush()
            began_s = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began_s)
    return round(statistics.median(times) * 1000, 2)
