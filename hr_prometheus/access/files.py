"""Files that are read again when they change."""

from __future__ import annotations

import errno
import os
import stat
from typing import TypeAlias

#: Bytes of a file, so that none takes the memory. The certificates that a system trusts are a quarter of it.
_MOST_BYTES = 2**20
#: What tells a file from an earlier one at the same path: time, size and place on the disk. None: there is none.
_State: TypeAlias = tuple[int, int, int, int] | None


def read_file(path: str) -> bytes:
    """Return a regular file's bytes, at most 1 MiB.

    A pipe or a device is an OSError: it may never end, and cannot be read again.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise OSError(errno.EFBIG, "Larger than 1 MiB", path)
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file. That of a pipe does not wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


class FileStates:
    """The files that were read, each with the state that it was in before."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    def read(self, path: str) -> bytes:
        """Return a file's bytes, and note its state, also if there is no such file."""
        self._states[path] = _state(path)
        return read_file(path)

    def have_changed(self) -> bool:
        """Whether one of the files is another than when it was read."""
        return any(_state(path) != state for path, state in self._states.items())


def _state(path: str) -> _State:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_dev, status.st_ino
