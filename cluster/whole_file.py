"""Files of a local disk that appear complete and durable, or not at all."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

UNFINISHED = ".tmp"


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes the place of ``path`` when the block ends.

    A reader sees the old file or the whole new one; after the block the new one survives a
    loss of power. When the block raises, ``path`` is as it was. A process that is killed leaves a hidden file behind.

    Args:
        path: where the file will be.
        mode: the file's permissions, less the umask.

    Raises:
        OSError: the disk is full, or the folder is not there or cannot be written.
    """
    # A leading dot keeps readers of the whole folder (DuckDB, Ray Data) away from it; the rest keeps writers apart.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{UNFINISHED}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def is_unfinished(name: str) -> bool:
    """Tell whether a file of this name is one that ``replacing`` writes, or wrote when its process was killed."""
    return name.startswith(".") and name.endswith(UNFINISHED)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: there is no such folder, or the disk failed.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
