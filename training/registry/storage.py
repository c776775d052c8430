"""Files under the floor's storage URL: whole ones, that appear complete or not at all.

Knows bytes and paths, not models. Invariant: after ``write`` returned, the file is
durable on a local disk (fsync of file and folder), and a reader never sees a part of it;
object stores give the same by showing an object only when its upload has ended.
"""

from pathlib import Path

from pyarrow import fs

from cluster.whole_file import replacing


class Storage:
    """One folder on a ``pyarrow.fs`` file system."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, root = fs.FileSystem.from_uri(self.url)
        self._root = root.rstrip("/")

    def uri(self, path: str) -> str:
        """Return the URL of ``path``, which ``Storage`` opens again."""
        return f"{self.url}/{path}"

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or folder at ``path``."""
        return bool(self._fs.get_file_info(self._full(path)).type != fs.FileType.NotFound)

    def folders(self, path: str) -> list[str]:
        """Return the names of the folders directly under ``path``, sorted; none when it does not exist."""
        found = self._fs.get_file_info(fs.FileSelector(self._full(path), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def by_age(self, path: str) -> list[str]:
        """Return the names of the files and folders directly under ``path``, the longest unchanged first."""
        found = self._fs.get_file_info(fs.FileSelector(self._full(path), allow_not_found=True))
        # An object store's folders have no time of their own; among them the name decides.
        return [info.base_name for info in sorted(found, key=lambda info: (info.mtime_ns or 0, info.base_name))]

    def delete(self, path: str) -> None:
        """Delete a file or a whole folder; nothing happens when it does not exist."""
        kind = self._fs.get_file_info(self._full(path)).type
        if kind == fs.FileType.Directory:
            self._fs.delete_dir(self._full(path))
        elif kind == fs.FileType.File:
            self._fs.delete_file(self._full(path))

    def read(self, path: str) -> bytes:
        """Return the whole file.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._fs.open_input_stream(self._full(path)) as stream:
            return bytes(stream.read())

    def write(self, path: str, content: bytes) -> None:
        """Write the whole file, replacing one that is there."""
        full = self._full(path)
        if isinstance(self._fs, fs.LocalFileSystem):
            Path(full).parent.mkdir(parents=True, exist_ok=True)
            with replacing(Path(full)) as stream:
                stream.write(content)
            return
        with self._fs.open_output_stream(full) as stream:
            stream.write(content)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root
