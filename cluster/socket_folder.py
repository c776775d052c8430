"""A short private folder per user and floor, for the Unix sockets of its parts.

Creates the folder, never what lies in it. Invariant: what is returned belongs to this user
and nobody else may enter it, although everybody may create names beside it.
"""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

MAX_CHARS = 24
"""Ray and HAProxy add up to 80 characters below it, and a Unix socket's path ends at 107."""


def socket_folder(data_dir: Path) -> Path:
    """Create and return the folder of the floor whose state is in ``data_dir`` (an absolute path).

    Raises:
        PermissionError: the place belongs to somebody else.
        OSError: it cannot be created.
    """
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"wf-{os.getuid()}-{digest}"
    if len(str(folder)) > MAX_CHARS:
        folder = Path("/tmp") / folder.name  # noqa: S108 - checked below to be ours alone
    folder.mkdir(mode=0o700, exist_ok=True)
    # Everybody may create names in /tmp: a folder prepared by another user must not be used.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} exists and is not a private folder of this user")
    return folder
