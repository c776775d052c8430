"""Children end with their parent, and are recognised before they are signalled."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cluster.process import MARK, Child, ProcessIdentity, end_marked, find_marked, send

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def _wait_gone(identity: ProcessIdentity, timeout_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while identity.is_running() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return not identity.is_running()


def test_stop_ends_the_whole_group(tmp_path: Path) -> None:
    """What the child started ends with it, even when it ignores SIGTERM."""
    program = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(inner.pid, flush=True)\n"
        "inner.wait()\n"
    )
    log = tmp_path / "log"
    child = Child.start("tree", [sys.executable, "-c", program], log_path=log)
    while not log.read_text().strip():
        time.sleep(0.02)
    inner = ProcessIdentity.of(int(log.read_text()))
    assert inner is not None

    child.stop(grace_s=0.2)

    assert child.poll() is not None
    assert _wait_gone(inner)


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """kill -9 of the parent leaves nothing running."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom cluster.process import Child\n"
        f"child = Child.start('x', {SLEEP!r}, log_path=Path({str(tmp_path / 'log')!r}))\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    orphan = ProcessIdentity.of(int(parent.stdout.readline()))
    assert orphan is not None

    parent.kill()
    parent.wait()
    parent.stdout.close()

    assert _wait_gone(orphan)


def test_marked_processes_are_found_and_ended(tmp_path: Path) -> None:
    """The mark is inherited, so processes that left the group are found as well."""
    program = "import subprocess, sys, time\nsubprocess.Popen(sys.argv[1:], start_new_session=True)\ntime.sleep(60)\n"
    floor_id = f"test-{os.getpid()}"
    child = Child.start(
        "x", [sys.executable, "-c", program, *SLEEP], log_path=tmp_path / "log", env={**os.environ, MARK: floor_id}
    )
    while len(find_marked(floor_id)) < 2:
        time.sleep(0.02)

    assert [identity.pid for identity in find_marked("another-floor")] == []
    assert child.pid not in {identity.pid for identity in find_marked(floor_id, spare=frozenset({child.pid}))}
    assert end_marked(floor_id) == 2
    assert find_marked(floor_id) == []
    child.stop(0.1)


def test_a_reused_pid_is_left_alone() -> None:
    """A process that began at another moment is somebody else."""
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    stranger = ProcessIdentity(me.pid, me.started_ticks - 1)

    assert me.is_running()
    assert not stranger.is_running()
    assert not send(stranger, signal.SIGKILL)
