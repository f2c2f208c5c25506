"""Folders for servers of a test's own: in memory where there is room, since a slow disk holds up each new database."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")
ROOM_BYTES: Final = 6 * 2**30
"""What the servers of all test processes may need together."""


def fresh(prefix: str) -> Path:
    """Make a folder that whoever asks for it removes.

    It is not pytest's, whose folders are closed to the unprivileged user that the servers get under root.
    """
    roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    return Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY if roomy else None))
