"""The directory in which the workers keep their numbers, and the slots by which its files are named.

prometheus_client names a process's files by an identifier: ``counter_<identifier>.db``. A worker's identifier is
its slot, ``w0``, so that its successor goes on where it has ended; ``w0-4711`` is a process that the application
forked in the worker, and a bare ``4711`` a Python program that it started, which inherits the directory and names
its files by its pid. The letter keeps pid 3, which a container has, apart from slot 3.

The directory is private to one supervisor. It is made in the directory which ``PROMETHEUS_MULTIPROC_DIR`` names, or
in shared memory, or among the temporary files, so that nothing else that is there is ever read or removed. The
supervisor holds a lock in it for as long as it lives: a directory whose lock is free was left over, whatever
process its pid belongs to by now.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
import struct
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.errors import ServingError
from hr_prometheus.workers.entries import entries, packed, timed, used

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hr_prometheus.workers.entries import Timed

logger = logging.getLogger("hr_prometheus")

#: Where the directory is made if ``PROMETHEUS_MULTIPROC_DIR`` does not say.
PLACES = ("/dev/shm", tempfile.gettempdir())  # noqa: S108  # a private directory in it
#: Bytes that must be free there. Whoever writes to memory that the file system has no room for is killed.
ROOM = 16 * 1024 * 1024

_PREFIX = "hr-prometheus-"
_ATTEMPTS = 10
#: The name of one of prometheus_client's files.
FILE = re.compile(r"(?P<kind>counter|summary|histogram|gauge_(?P<mode>[a-z]+))_(?P<identifier>.+)\.db")
_PROCESS = re.compile(r"(?:w[0-9]+-)?(?P<pid>[0-9]+)")

#: How the numbers of a process that is gone join those of its slot; what is not here is dropped with it.
_JOIN: Mapping[str, Callable[[Timed, Timed], Timed]] = {
    **dict.fromkeys(("counter", "summary", "histogram", "gauge_sum"), lambda a, b: (a[0] + b[0], 0.0)),
    "gauge_min": min,
    "gauge_max": max,
    "gauge_mostrecent": lambda a, b: max(a, b, key=lambda timed: timed[1]),
}


def identifier(slot: int) -> str:
    """Return what a worker's files are named by."""
    return f"w{slot}"


def shown_as(identifier: str) -> str:
    """Return the label ``worker`` of what stands in files named by *identifier*."""
    return identifier[1:] if identifier.startswith("w") else f"pid-{identifier}"


def with_worker(labels: Mapping[str, str], worker: str) -> dict[str, str]:
    """Return *labels* and the label ``worker``; one of that name that is there becomes ``exported_worker``.

    So does Prometheus with labels of a target's that it has itself.
    """
    shown = dict(labels)
    if "worker" in shown:
        kept = "exported_worker"
        while kept in shown:
            kept = f"exported_{kept}"
        shown[kept] = shown.pop("worker")
    shown["worker"] = worker
    return shown


class Slots:
    """A directory for the numbers of one supervisor's workers.

    *base* is the directory to make it in; by default the first of :data:`PLACES` that can be written and has room.
    Raises :exc:`~hr_prometheus.errors.ServingError` if there is none. :attr:`path` is for this user alone.
    """

    def __init__(self, base: str | None = None) -> None:
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
        a live mode go, as prometheus_client's ``mark_process_dead`` does it, and so do files that cannot be read:
        a worker that is killed while it makes one leaves it empty. The numbers of dead processes that the
        application has forked or started join those of the slot, so that the files do not become more.

        Raises :exc:`~hr_prometheus.errors.ServingError` if no room is left for the next worker's files, or the
        directory is gone.
        """
        try:
            self._clean(slot)
            _check_room(self.path, ROOM // 16)
        except OSError as error:
            raise _no_place(_reason(self.path, error)) from None

    def remove(self) -> None:
        """Remove the directory. What a process writes to it afterwards is lost."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # removing twice is fine
            os.close(self._lock)

    def _clean(self, slot: int) -> None:
        for name, parts in self._files():
            if parts["identifier"] == identifier(slot):
                path = os.path.join(self.path, name)
                if _is_live(parts) or _contents(path) is None:
                    _remove(path)
        for name, parts in self._files():
            process = _PROCESS.fullmatch(parts["identifier"])
            if process and not _is_alive(int(process["pid"])):
                self._join(name, parts, slot)

    def _files(self) -> Iterator[tuple[str, re.Match[str]]]:
        for name in sorted(os.listdir(self.path)):
            parts = FILE.fullmatch(name)
            if parts:
                yield name, parts

    def _join(self, name: str, parts: re.Match[str], slot: int) -> None:
        """Add the numbers of a process that is gone to those of the slot, and remove its file."""
        path = os.path.join(self.path, name)
        contents = _contents(path)
        join = _JOIN.get(parts["kind"])
        if join and contents:
            target = os.path.join(self.path, f"{parts['kind']}_{identifier(slot)}.db")
            joined = _contents(target) or {}
            for key, numbers in contents.items():
                joined[key] = join(joined[key], numbers) if key in joined else numbers
            try:
                _replace(target, packed(joined))
            except OSError as error:
                logger.warning("%s stays as it is: %s", path, error)
                return
        _remove(path)


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
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
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


def _is_live(parts: re.Match[str]) -> bool:
    return bool(parts["mode"]) and parts["mode"].startswith("live")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's, or no pid at all
        return True
    return True


def _contents(path: str) -> dict[str, Timed] | None:
    """Return all keys and numbers of one of prometheus_client's files; ``None`` if it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        return {key.decode(): timed(data, position) for key, position in entries(data, used(data))}
    except (struct.error, ValueError, FileNotFoundError):
        return None


def _replace(path: str, data: bytes) -> None:
    """Write a file anew: whole, or not at all. Without memory mapping, so that a lack of room is an error and no death."""
    new = f"{path}.new"
    try:
        with open(new, "wb") as file:
            file.write(data)
        os.replace(new, path)
    except OSError:
        _remove(new)
        raise


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.remove(path)
