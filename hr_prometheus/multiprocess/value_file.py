"""The files of prometheus_client's metrics, as a worker keeps them.

prometheus_client's own files are sparse: where the file system has no room the next value ends the process by SIGBUS. Here
room is taken first. All values are in memory, too, so that what has no room waits there, and a file that another process has
removed or truncated is written again.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from contextlib import suppress
from threading import RLock
from time import monotonic
from typing import TYPE_CHECKING

from hr_prometheus.multiprocess.mmap_format import FIRST_ENTRY, entries, pack, read_file
from hr_prometheus.store.files import file_allocator
from hr_prometheus.store.slot_writer import take_room

if TYPE_CHECKING:
    from hr_prometheus.multiprocess.mmap_format import TimedValue

logger = logging.getLogger("hr_prometheus")

#: Bytes of the smallest file.
_SMALLEST = 16384
#: Seconds after which a new value tries again to have room.
_RETRY_SECONDS = 1.0
_pack_value = struct.Struct("dd").pack
_pack_size = struct.Struct("i").pack

_files: list[ValueFile] = []


class ValueFile:
    """The file at *path* and its values, with the interface of prometheus_client's ``MmapedDict``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = RLock()  # also against settle() in another thread than prometheus_client's
        self._values: dict[str, TimedValue] = read_file(path) or {}
        self._needed = len(pack(self._values))  # bytes of all values
        self._map: mmap.mmap | None = None
        self._inode, self._used = 0, 0
        self._positions: dict[str, int] = {}  # of the values that are in the file
        self._next_try = 0.0
        self.settle()
        _files.append(self)

    @property
    def waiting(self) -> int:
        """How many values are only in memory."""
        return len(self._values) - len(self._positions)

    def read_value(self, key: str) -> TimedValue:
        """Return a value and its timestamp; the first call makes it."""
        with self._lock:
            if key not in self._values:
                self._values[key] = 0.0, 0.0
                self._append(key, pack({key: (0.0, 0.0)})[FIRST_ENTRY:])
            return self._values[key]

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Set a value that was read before."""
        with self._lock:
            self._values[key] = value, timestamp
            position = self._positions.get(key)
            if position is not None and self._map is not None:
                self._map[position : position + 16] = _pack_value(value, timestamp)

    def close(self) -> None:
        """Close the file."""
        with suppress(ValueError):
            _files.remove(self)
        if self._map is not None:
            self._map.close()
            self._map = None

    def settle(self) -> None:
        """Write what is only in memory, if there is room now, and a file anew that another process has removed or truncated."""
        with self._lock, suppress(OSError):
            is_damaged = self._map is not None and self._is_damaged(len(self._map))
            if is_damaged or self.waiting or self._map is None:
                self._make()
            if is_damaged:
                logger.error(
                    "Another process has removed or truncated %s. The worker has written it again.", self._path
                )

    def _is_damaged(self, size: int) -> bool:
        try:
            status = os.stat(self._path)
        except OSError:
            return True
        return status.st_ino != self._inode or status.st_size < size

    def _append(self, key: str, entry: bytes) -> None:
        self._needed += len(entry)
        end = self._used + len(entry)
        if self._map is None or end > len(self._map):
            if self.waiting == 1 or monotonic() >= self._next_try:  # a process that was forked has no other look
                self.settle()
                self._next_try = monotonic() + _RETRY_SECONDS
            if self.waiting == 1:
                text = "The values of new metrics cannot be written to %s. They are kept in memory until they can."
                logger.error(text, self._path)
            _note_waiting()
            return
        self._map[self._used : end] = entry
        self._map[:4] = _pack_size(end)
        self._positions[key] = end - 16
        self._used = end

    def _make(self) -> None:
        """Write all values to a new file, in the place of the old one. Raises :exc:`OSError` if there is no room."""
        size = _SMALLEST
        while size < self._needed:
            size *= 2
        new = f"{self._path}.new"
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            take_room(file, 0, size)
            data = pack(self._values)
            os.pwrite(file, data, 0)
            mapped = mmap.mmap(file, size)
            os.replace(new, self._path)
            self._inode = os.fstat(file).st_ino
        except OSError:
            with suppress(OSError):
                os.remove(new)
            raise
        finally:
            os.close(file)
        self._map, self._used = mapped, len(data)
        self._positions = {key.decode(): position for key, position in entries(data, len(data))}


def settle_values() -> None:
    """Do for each file what :meth:`ValueFile.settle` does."""
    for file in _files.copy():
        file.settle()
    _note_waiting()


def _note_waiting() -> None:
    allocator = file_allocator()
    if allocator is not None:
        allocator.note_values(sum(file.waiting for file in _files))
