"""Logs of children that never close their files stay bounded."""

from pathlib import Path

from serve_apps.log_bounds import bound_logs


def test_a_full_log_is_put_aside_under_its_writer(tmp_path: Path) -> None:
    """Its writer goes on in the emptied file, and one older part is kept."""
    path = tmp_path / "ray.log"
    with path.open("ab", buffering=0) as writer:
        for part in (b"first....", b"second...", b"third"):
            writer.write(part)
            bound_logs(tmp_path, max_bytes=8)

    assert path.read_bytes() == b"third"
    assert (tmp_path / "ray.log.1").read_bytes() == b"second..."
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ray.log", "ray.log.1"]
