"""The directory of the workers' files, private to one supervisor.

It is made in the directory that ``PROMETHEUS_MULTIPROC_DIR`` names, or in shared memory, or among the temporary files.
Nothing else that is there is ever read or removed. The supervisor holds a lock on its directory for as long as it lives.
A directory whose lock is free was left over, even if its name has the pid of a living process.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from hr_prometheus.errors import ServingError
from hr_prometheus.metrics import ERRORS
from hr_prometheus.multiprocess.compaction import compact
from hr_prometheus.multiprocess.identity import FILE, identifier
from hr_prometheus.multiprocess.mmap_format import read_file
from hr_prometheus.store.failures import failures_of
from hr_prometheus.store.slot_reader import clear_gauges

if TYPE_CHECKING:
    from hr_prometheus.store.slot_files import InMemory

logger = logging.getLogger("hr_prometheus")

#: Where the directory is made if ``PROMETHEUS_MULTIPROC_DIR`` is not set.
PLACES = ("/dev/shm", tempfile.gettempdir())  # noqa: S108  # a private directory in it
#: Bytes that must be free there. A process that writes to mapped memory for which a file system has no room is killed.
ROOM = 16 * 1024 * 1024

_PREFIX = "hr-prometheus-"
_ATTEMPTS = 10


class Slots:
    """The directory of one supervisor, in which each worker writes to the files of its slot.

    *base* is the directory to make it in; by default the first of :data:`PLACES` that can be written and has room.
    Raises :exc:`~hr_prometheus.errors.ServingError` if there is none. Only this user can read :attr:`path`.
    """

    def __init__(self, base: str | None = None) -> None:
        self._lock: int | None = None
        #: How often the directory was made again.
        self.restored = 0
        refusals = []
        for place in (base,) if base else PLACES:
            try:
                if base:
                    os.makedirs(place, exist_ok=True)
                _sweep(place)
                _check_room(place, ROOM)
                self.path, self._lock = _make_directory(place)
            except OSError as error:
                refusals.append(_reason(place, error))
            else:
                return
        raise _no_place("; ".join(refusals))

    def restore(self) -> None:
        """Make the directory again if another process has removed it, as cleaners of temporary files do.

        Raises :exc:`~hr_prometheus.errors.ServingError` if that is impossible.
        """
        if self._lock is None or _is_at(self._lock, self.path):
            return
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            lock = _try_lock(self.path)
        except OSError as error:
            raise _no_place(_reason(self.path, error)) from None
        logger.error(
            "The directory of the workers' numbers, %s, was removed by another process. It is made again.", self.path
        )
        os.close(self._lock)
        self._lock = lock
        self.restored += 1

    def reclaim(self, slot: int) -> None:
        """Make the files of *slot* fit for its next worker, and remove what described the last one.

        To be called after the last worker was waited for (``waitpid``), and before the next one starts. Requests of the
        last one are no longer in progress. Gauges of a live mode are removed, as by prometheus_client's
        ``mark_process_dead``, and those of the mode ``all``, which would be the state of another process. So are
        files that cannot be read: a worker that is killed while it makes a file leaves it empty.

        Raises :exc:`~hr_prometheus.errors.ServingError` if no room is left for the next worker's files, or the
        directory is gone.
        """
        self.restore()
        try:
            _count_lost(slot, clear_gauges(os.path.join(self.path, identifier(slot))))
            self._remove_files(identifier(slot))
            compact(self.path)
            _check_room(self.path, ROOM // 16)
        except OSError as error:
            raise _no_place(_reason(self.path, error)) from None

    def remove(self) -> None:
        """Remove the directory. What a process writes to it afterwards is lost."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _remove_files(self, name: str) -> None:
        """Remove the files of a worker that its successor must not or cannot use."""
        for file in os.listdir(self.path):
            parts = FILE.fullmatch(file)
            if parts and parts["identifier"] == name:
                path = os.path.join(self.path, file)
                if (parts["mode"] or "").startswith(("live", "all")) or read_file(path) is None:
                    os.remove(path)


def _count_lost(slot: int, lost: InMemory) -> None:
    if not any(lost):
        return
    text = "Worker %d has ended while %d requests, in %d series, and %d values of the application's metrics were only in its memory. They are lost."
    logger.error(text, slot, lost.requests, lost.series, lost.values)
    failures_of(REGISTRY).count(ERRORS, "memory", lost.requests or 1.0)


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


def _make_directory(place: str) -> tuple[str, int]:
    """Make a directory and lock it. Return its path and the descriptor of the lock."""
    for _ in range(_ATTEMPTS):
        path = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place)
        # Another supervisor may sweep the new directory before it is locked.
        with suppress(FileNotFoundError):
            lock = _try_lock(path)
            if lock is not None and os.path.exists(path):
                return path, lock
    raise OSError(errno.EBUSY, "another process removes each directory that is made there")


def _try_lock(path: str) -> int | None:
    """Lock a directory, also against systemd-tmpfiles. Return the descriptor; ``None`` if another process has the lock."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _is_at(directory: int, path: str) -> bool:
    """Whether an open directory is the one at *path*."""
    try:
        return os.path.samestat(os.fstat(directory), os.stat(path))
    except OSError:
        return False


def _sweep(place: str) -> None:
    """Remove the directories that this user's killed supervisors have left."""
    for name in os.listdir(place):
        with suppress(OSError):  # a link, a file, or another user's directory
            lock = _try_lock(os.path.join(place, name)) if name.startswith(_PREFIX) else None
            if lock is not None:
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(os.path.join(place, name), ignore_errors=True)
                os.close(lock)
