"""Where the sockets of a floor lie."""

import stat
from pathlib import Path

import pytest

from cluster.socket_folder import MAX_CHARS, socket_folder


def test_the_folder_is_short_and_private_however_long_the_data_folders_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a Unix socket ends at 107 characters."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    folder = socket_folder(tmp_path)
    try:
        assert len(str(folder)) <= MAX_CHARS
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert socket_folder(tmp_path) == folder
    finally:
        folder.rmdir()


@pytest.mark.parametrize("kind", ["open", "file", "link"])
def test_what_somebody_else_prepared_is_not_used(tmp_path: Path, kind: str) -> None:
    """Everybody may create names in the temporary folder."""
    folder = socket_folder(tmp_path)
    try:
        if kind == "open":
            folder.chmod(0o755)
        else:
            folder.rmdir()
            if kind == "link":
                folder.symlink_to(tmp_path)
            else:
                folder.touch()
        with pytest.raises(OSError, match=r"private|exists"):
            socket_folder(tmp_path)
    finally:
        if kind == "open":
            folder.rmdir()
        else:
            folder.unlink()
