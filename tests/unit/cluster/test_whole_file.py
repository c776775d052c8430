"""A file is replaced whole or not at all."""

from pathlib import Path

import pytest

from cluster.whole_file import replacing, sync_folder


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert [other.name for other in tmp_path.glob("[!.]*")] == ["file"], "unfinished files are hidden"

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def stop_half_way() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replacing(tmp_path / "missing" / "file").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_the_owner_alone_may_read_a_private_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "secret", mode=0o600) as file:
        file.write(b"s")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    sync_folder(tmp_path)
