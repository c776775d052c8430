"""A small disk of a test's own, in memory, to be filled to the last byte; it takes the right to mount."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

MIB = 1024 * 1024
DISK_BYTES = 24 * MIB


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A mounted disk."""

    folder: Path

    @property
    def filler(self) -> Path:
        return self.folder / "filler"

    def free_bytes(self) -> int:
        """Return the room that is left."""
        stat = os.statvfs(self.folder)
        return stat.f_bavail * stat.f_frsize

    def fill(self, leave_bytes: int) -> None:
        """Take all its room but ``leave_bytes``."""
        with self.filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, self.free_bytes() - leave_bytes))


def mounted(folder: Path) -> Iterator[SmallDisk]:
    """Mount a disk at ``folder`` for as long as the test takes; leaves the test out where that is not allowed."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a disk of the test's own cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
