"""Reads what the workers' metrics have left in prometheus_client's files, and remembers where it stood.

prometheus_client's own ``MultiProcessCollector`` parses every key of every file at every scrape. But keys are only
ever appended to a file, so here each is parsed once: what remains is to fetch the numbers from the places where
they are known to be, and to add them up. The samples are those of ``MultiProcessCollector``, but for:

- a gauge of the mode ``all`` or ``liveall`` has the label ``worker`` where that has ``pid``;
- a label ``pid`` of the application's own survives in a gauge;
- a histogram that a worker is just making (``+Inf`` is its last bucket) is left out;
- a histogram with a negative bound has no ``_sum``, as in one process: it is no counter;
- text that UTF-8 cannot encode is escaped, and two metrics of one name and different types stay two.
"""

from __future__ import annotations

import logging
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from prometheus_client.mmap_dict import MmapedDict

from hr_prometheus.multiprocess.aggregate import Key, Plan, Source
from hr_prometheus.multiprocess.identity import FILE
from hr_prometheus.multiprocess.mmap_format import FIRST_ENTRY, entries, used

if TYPE_CHECKING:
    import re

    from prometheus_client.core import Metric as Family

logger = logging.getLogger("hr_prometheus")

#: Bytes that are read of a file that is not known yet.
_HEAD: Final = 4096


class Files:
    """All files in a directory, as one collectable.

    The samples of successive scrapes share their labels: look at them, do not change them.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._files: dict[str, _File] = {}
        self._keys: dict[str, dict[bytes, Key]] = {}
        self._plan = Plan()

    def collect(self) -> list[Family]:
        """Return the families of which there is a sample.

        What cannot be read of a file is left out, and logged once. A directory that is gone is an ``OSError``.
        """
        parts = {name: parts for name in os.listdir(self._directory) if (parts := FILE.fullmatch(name))}
        for name, file in list(self._files.items()):
            if name not in parts or not file.is_there():
                self._files.pop(name).close()
                self._keys = {}  # so that keys which nobody has any more do not stay for ever
        for name in parts.keys() - self._files.keys():
            with suppress(FileNotFoundError):
                self._files[name] = _File(os.path.join(self._directory, name), parts[name])
        sources = []
        for name in sorted(self._files):
            file = self._files[name]
            file.read(self._keys.setdefault(file.source.kind, {}))
            sources.append(file.source)
        return self._plan.families(sources)

    def close(self) -> None:
        """Close the files, which stay open from one scrape to the next."""
        for file in self._files.values():
            file.close()
        self._files = {}


class _File:
    """One file, and where its numbers are.

    It stays open, so that its inode is given to no other file, by which a successor of the same name is told.
    """

    def __init__(self, path: str, parts: re.Match[str]) -> None:
        self._path = path
        self._parts = parts
        self._file = os.open(path, os.O_RDONLY)
        self._inode = os.fstat(self._file).st_ino
        self._is_logged = False
        self._forget()

    def _forget(self) -> None:
        self.source = Source(
            self._parts["kind"].partition("_")[0], self._parts["mode"] or "", self._parts["identifier"]
        )
        self._end = FIRST_ENTRY
        self._format = [f"={FIRST_ENTRY}x"]
        self._layout = struct.Struct("")
        #: The keys, if they were not read here but by prometheus_client.
        self._foreign: list[str] | None = None

    def is_there(self) -> bool:
        """Whether this is still the file of its name."""
        try:
            return os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            return False

    def close(self) -> None:
        os.close(self._file)

    def read(self, keys: dict[bytes, Key]) -> None:
        """Bring :attr:`source` up to date; it is a new one if the file is not the one that was read before."""
        try:
            self._read(keys)
        except Exception as error:  # noqa: BLE001  # whatever is in it, the other files shall be read
            self._read_as_prometheus_client_does(error)

    def _read(self, keys: dict[bytes, Key]) -> None:
        data = os.pread(self._file, max(self._end, _HEAD), 0)
        end = used(data)
        if end > len(data):
            data = os.pread(self._file, end, 0)
        if end != self._end:
            self._read_keys(data, end, keys)
        values = self._layout.unpack_from(data)
        if self.source.kind == "gauge":
            self.source.values, self.source.times = values[::2], values[1::2]
        else:
            self.source.values = values

    def _read_keys(self, data: bytes, end: int, keys: dict[bytes, Key]) -> None:
        """Take note of the entries that are new, and of where their numbers are."""
        number = "xdd" if self.source.kind == "gauge" else "xd8x"
        position = self._end
        found, steps = [], []
        for text, numbers in entries(data, end, position):
            key = keys.get(text)
            if key is None:
                key = keys[text] = Key.parsed(text)
            found.append(key)
            steps.append(f"{numbers - position}{number}")
            position = numbers + 16
        if self._foreign:
            self._forget()
        self.source.keys += found
        self._format += steps
        self._layout = struct.Struct("".join(self._format))
        self._end = position

    def _read_as_prometheus_client_does(self, error: Exception) -> None:
        """Take what prometheus_client's own reader can get out of the file, without remembering it."""
        size = os.fstat(self._file).st_size
        texts: list[str] = []
        parsed, values, times = [], [], []
        try:
            rows = MmapedDict.read_all_values_from_file(self._path)  # type: ignore[no-untyped-call]
            for text, value, time, _ in rows:
                parsed.append(Key.parsed(text.encode()))
                texts.append(text)
                values.append(value)
                times.append(time)
        except Exception as second:  # noqa: BLE001  # as above
            error = second
        # An empty file is one that its worker is just making, or was killed while it made it.
        if size and not self._is_logged:
            self._is_logged = True
            logger.warning("%s cannot be read beyond its entry %d: %s", self._path, len(texts), error)
        if texts != self._foreign:
            self._forget()
            self._foreign = texts
            self.source.keys = parsed
        self.source.values, self.source.times = values, times
