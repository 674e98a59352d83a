"""The directory in which the workers keep their numbers.

It is private to one supervisor. It is made in the directory which ``PROMETHEUS_MULTIPROC_DIR`` names, or in shared
memory, or among the temporary files, so that nothing else that is there is ever read or removed. The supervisor holds
its lock for as long as it lives: a directory whose lock is free was left over, whatever process its pid belongs to
by now.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress

from hr_prometheus.errors import ServingError
from hr_prometheus.multiprocess.ended import join_ended
from hr_prometheus.multiprocess.identity import FILE, identifier
from hr_prometheus.multiprocess.mmap_format import contents

#: Where the directory is made if ``PROMETHEUS_MULTIPROC_DIR`` does not say.
PLACES = ("/dev/shm", tempfile.gettempdir())  # noqa: S108  # a private directory in it
#: Bytes that must be free there. Whoever writes to memory that the file system has no room for is killed.
ROOM = 16 * 1024 * 1024

_PREFIX = "hr-prometheus-"
_ATTEMPTS = 10


class Slots:
    """A directory for the numbers of one supervisor's workers.

    *base* is the directory to make it in; by default the first of :data:`PLACES` that can be written and has room.
    Raises :exc:`~hr_prometheus.errors.ServingError` if there is none. :attr:`path` is for this user alone.
    """

    def __init__(self, base: str | None = None) -> None:
        self._lock: int | None = None
        refusals = []
        for place in (base,) if base else PLACES:
            try:
                if base:
                    os.makedirs(place, exist_ok=True)
                _sweep(place)
                _check_room(place, ROOM)
                self.path, self._lock = _made_in(place)
            except OSError as error:
                refusals.append(_reason(place, error))
            else:
                return
        raise _no_place("; ".join(refusals))

    def reclaim(self, slot: int) -> None:
        """Make the files of *slot* fit for its next worker, and end what the last one said of itself.

        To be called after the last worker was waited for (``waitpid``), and before the next one starts. Gauges of
        a live mode go, as prometheus_client's ``mark_process_dead`` does it, and those of the mode ``all``: the next
        worker would go on from a state that is not its own. So do files that cannot be read: a worker that is
        killed while it makes one leaves it empty.

        Raises :exc:`~hr_prometheus.errors.ServingError` if no room is left for the next worker's files, or the
        directory is gone.
        """
        try:
            self._clean(identifier(slot))
            join_ended(self.path)
            _check_room(self.path, ROOM // 16)
        except OSError as error:
            raise _no_place(_reason(self.path, error)) from None

    def remove(self) -> None:
        """Remove the directory. What a process writes to it afterwards is lost."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _clean(self, name: str) -> None:
        """Remove what the worker of this identifier has left that its successor cannot use, or that is over with it."""
        for file in os.listdir(self.path):
            parts = FILE.fullmatch(file)
            if parts and parts["identifier"] == name:
                path = os.path.join(self.path, file)
                if (parts["mode"] or "").startswith(("live", "all")) or contents(path) is None:
                    os.remove(path)


def _check_room(place: str, needed: int) -> None:
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise OSError(errno.ENOSPC, f"only {free >> 10} KiB are free")


def _reason(place: str, error: OSError) -> str:
    return f'"{place}": {error.strerror or error}'


def _no_place(reason: str) -> ServingError:
    return ServingError(
        f"the numbers of the workers cannot be kept ({reason}). Name a directory that can be written, with "
        f"{ROOM >> 20} MiB free, in the environment variable PROMETHEUS_MULTIPROC_DIR."
    )


def _made_in(place: str) -> tuple[str, int]:
    """Make a directory whose lock is ours; return its path and the lock's descriptor."""
    for _ in range(_ATTEMPTS):
        path = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place)
        # Another supervisor that is just sweeping may take the new directory for one left over.
        with suppress(FileNotFoundError):
            lock = _locked(path)
            if lock is not None and os.path.exists(path):
                return path, lock
    raise OSError(errno.EBUSY, "somebody removes what is made there")


def _locked(path: str) -> int | None:
    """Take the lock of a directory, which also keeps systemd-tmpfiles from it; ``None`` if another process has it."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _sweep(place: str) -> None:
    """Remove the directories whose supervisor has ended without removing them."""
    for name in os.listdir(place):
        # What only points here, or belongs to somebody else, is none of ours.
        with suppress(OSError):
            lock = _locked(os.path.join(place, name)) if name.startswith(_PREFIX) else None
            if lock is not None:
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(os.path.join(place, name), ignore_errors=True)
                os.close(lock)
