"""A file that says: publications were confirmed without the journal.

The journal cannot hold that fact itself, for it is away when the fact arises. Invariant:
the file is there before the first such confirmation and until the journal has caught up,
so a hub that finds it at its start knows that the journal proves nothing.
"""

from pathlib import Path

from cluster.whole_file import sync_folder


class BehindMarker:
    """The file, in the state folder of the hub's machine. Blocks; call it from a thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal-behind"

    def is_set(self) -> bool:
        return self._path.exists()

    def set(self) -> None:
        """Create the file and make its name durable.

        Raises:
            OSError: the folder cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        sync_folder(self._path.parent)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
