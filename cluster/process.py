"""Child processes that end with their parent, and a way to recognise them later.

Decides nothing about restarts. Every child leads a process group of its own, so a Ctrl-C in
the terminal reaches only the supervisor, and one signal ends the child with all it started.
Invariant: a process is only ever signalled after its start time was compared, so a pid that
the system has given to somebody else is left alone.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "WATCHFLOOR_FLOOR_ID"
"""Environment variable that every process of a floor inherits; how leftovers are found."""

POLL_S = 0.02
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A pid together with the moment that process began, in clock ticks since boot."""

    pid: int
    started_ticks: int

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """Return the identity of a running process; None when there is none, or a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The command name may hold spaces and brackets; the fields after it are counted from its end.
        fields = stat[stat.rindex(")") + 2 :].split()
        return None if fields[0] in {"Z", "X"} else cls(pid, int(fields[19]))

    def is_running(self) -> bool:
        """Say whether this very process still runs."""
        return ProcessIdentity.of(self.pid) == self


class Child:
    """One started program: its process group, its log file and its end."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", identity: ProcessIdentity) -> None:
        self.name = name
        self.identity = identity
        self._process = process

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        nice: int = 0,
    ) -> "Child":
        """Start a program that gets SIGTERM when the calling *thread* ends.

        Call it from the main thread: the kernel binds the signal to the thread that forked.

        Args:
            name: what people call it in messages.
            argv: program and arguments.
            log_path: file that its output is appended to; created 0600.
            env: its whole environment; None means ours.
            cwd: its working folder; None means ours.
            nice: added to its niceness.
        """
        log_path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                env=dict(os.environ if env is None else env),
                cwd=cwd,
                process_group=0,
                preexec_fn=_before_exec(os.getpid(), nice),
            )
        finally:
            os.close(descriptor)
        # A child that is gone already has no identity left; one that matches nothing stands in for it.
        return cls(name, process, ProcessIdentity.of(process.pid) or ProcessIdentity(process.pid, -1))

    @property
    def pid(self) -> int:
        return self.identity.pid

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end; None when the time is up first."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Ask the whole process group to end; returns at once."""
        self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """End the whole process group without asking."""
        self._signal_group(signal.SIGKILL)

    def stop(self, grace_s: float = 10.0) -> None:
        """End the process group: SIGTERM, and SIGKILL for what is left after ``grace_s``."""
        self.terminate()
        self.wait(grace_s)
        # The leader may be gone while members of its group are not.
        self.kill()
        self.wait(5.0)

    def _signal_group(self, number: signal.Signals) -> None:
        # An unreaped leader keeps its pid, and a living member keeps the group's number, from
        # being given to others; with neither, the call fails and there is nothing to end.
        try:
            os.killpg(self.identity.pid, number)
        except (ProcessLookupError, PermissionError):
            return


def find_marked(floor_id: str, spare: frozenset[int] = frozenset()) -> list[ProcessIdentity]:
    """Return this user's running processes that inherited ``floor_id``.

    The caller is not among them, nor are members of the process groups in ``spare``.
    """
    needle = f"{MARK}={floor_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            # Gone meanwhile, or another user's: neither is ours to touch.
            continue
        if needle in environment.split(b"\0"):
            identity = ProcessIdentity.of(int(entry.name))
            if identity is not None and _group_of(identity.pid) not in spare:
                found.append(identity)
    return found


def end_marked(floor_id: str, grace_s: float = 5.0, spare: frozenset[int] = frozenset()) -> int:
    """End every process of a floor outside the groups in ``spare``, and return how many there were."""
    left = find_marked(floor_id, spare)
    seen = set(left)
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        deadline_s = time.monotonic() + wait_s
        for identity in left:
            send(identity, number)
        while (left := find_marked(floor_id, spare)) and time.monotonic() < deadline_s:
            seen.update(left)
            time.sleep(POLL_S * 5)
    return len(seen)


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return -1


def send(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it has ended."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except OSError:
        return False
    try:
        # The descriptor pins the process, so the comparison holds until the signal is sent.
        if not identity.is_running():
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _before_exec(parent_pid: int, nice: int) -> Callable[[], None]:
    # Loaded before the fork: between fork and exec only plain system calls are safe.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def run() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)  # the parent died between fork and prctl: nobody would ever signal us
        if nice:
            os.nice(nice)

    return run
