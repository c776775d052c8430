"""The file of rules on disk, read again when it changes.

A file that cannot be used leaves the rules before it in force and says why. Invariant:
``poll`` answers with rules only when they are all good and differ in content from the last.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import RulesFileError
from ingest.rules.model import Rule
from ingest.rules.parse import MAX_FILE_BYTES, parse_rules

logger = logging.getLogger(__name__)


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Return the rules of a file.

    Raises:
        RulesFileError: it cannot be read, or it holds mistakes.
    """
    return parse_rules(_decoded(path, _content(path)), str(path))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found at the last look."""

    modified_ns: int
    size: int
    inode: int


class RulesFile:
    """One file that is followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        """Why the content of now is not in force; None while it is."""
        self._seen: _Seen | None = None
        self._digest = b""

    def poll(self) -> tuple[Rule, ...] | None:
        """Return the rules when they have changed; None: go on with what there is."""
        try:
            stat = self.path.stat()
            seen = _Seen(stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return None
            content = _content(self.path)
            self._seen = seen
            digest = hashlib.sha256(content).digest()
            if digest == self._digest and self.problem is None:
                return None
            rules = parse_rules(_decoded(self.path, content), str(self.path))
        except (RulesFileError, OSError) as error:
            if isinstance(error, OSError):
                self._seen = None
            self._failed(str(error) if isinstance(error, RulesFileError) else f"{self.path}: {error.strerror}")
            return None
        if self.problem is not None:
            logger.info("the rules of %s are usable again", self.path)
        self.problem, self._digest = None, digest
        return rules

    def _failed(self, problem: str) -> None:
        if problem != self.problem:
            logger.error("the rules stay as they were: %s", problem)
        self.problem = problem


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # One byte more than allowed: the parser then says that there is too much.
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise RulesFileError(str(path), (f"cannot be read: {error.strerror}",)) from error


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RulesFileError(str(path), (f"line {line}: is not UTF-8",)) from error
