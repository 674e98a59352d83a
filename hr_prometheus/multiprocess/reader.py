"""Reads prometheus_client's files, and remembers where it stopped.

prometheus_client's own ``MultiProcessCollector`` parses every key of every file at every scrape. But keys are only
ever appended to a file. Here each is parsed once, and a scrape reads the values at the positions known from then.
The samples are those of ``MultiProcessCollector``, except:

- a gauge of the mode ``all`` or ``liveall`` has the label ``worker`` in the place of ``pid``;
- a gauge keeps a label ``pid`` of the application's own;
- a histogram that a worker is just making is left out, which is one without the bucket ``+Inf``;
- a histogram with a negative bound has no ``_sum``, as in one process: its sum is not a counter;
- text that UTF-8 cannot encode is escaped, and two metrics of one name and different types are not mixed.
"""

from __future__ import annotations

import logging
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY
from prometheus_client.mmap_dict import MmapedDict

from hr_prometheus.metrics import ERRORS
from hr_prometheus.multiprocess.aggregate import Aggregator, FileContents, SampleKey
from hr_prometheus.multiprocess.identity import CHILD, FILE
from hr_prometheus.multiprocess.mmap_format import FIRST_ENTRY, entries, used_bytes
from hr_prometheus.store.failures import failures_of

if TYPE_CHECKING:
    import re

    from prometheus_client.core import Metric as Family

logger = logging.getLogger("hr_prometheus")

#: Bytes that are read of a new file.
_HEAD: Final = 4096


class ValueCollector:
    """The values in all files of a directory, as a collector for prometheus_client.

    The samples of successive scrapes share their labels: do not change them.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._files: dict[str, _MmapFile] = {}
        self._keys: dict[str, dict[bytes, SampleKey]] = {}
        self._aggregator = Aggregator()

    def collect(self) -> list[Family]:
        """Return the families that have a sample.

        What cannot be read of a file is left out, and logged once. Files that were read stay open while the
        directory is gone; without any, :exc:`OSError` is raised.
        """
        self.look()
        if not self._files:
            os.listdir(self._directory)  # an error if there is none
        elif os.path.isdir(self._directory):
            for name in [name for name, file in self._files.items() if not (file.is_lasting or file.is_current())]:
                self._close(name)
        contents = []
        for name in sorted(self._files):
            file = self._files[name]
            file.read(self._keys.setdefault(file.contents.kind, {}))
            contents.append(file.contents)
        return self._aggregator.families(contents)

    def look(self) -> None:
        """Open files that are new, write those again that another process has removed, and note those that were truncated.

        Files of live gauges and of forks go with their process, and are not written again. A worker that still has its values
        writes another file.
        """
        for name, file in list(self._files.items()):
            is_there = os.path.exists(file.path)
            if is_there and not file.is_current():
                self._close(name)
                continue
            if file.was_cut():
                logger.error(
                    "Another process has truncated %s. Values that its worker cannot write again restart at zero.",
                    file.path,
                )
                failures_of(REGISTRY).count(ERRORS, "files")
            if file.is_lasting and not is_there:
                with suppress(OSError, ValueError, struct.error):  # no room, or it could not be read
                    file.restore()
                    self._close(name)
        with suppress(FileNotFoundError, NotADirectoryError):
            for parts in filter(None, map(FILE.fullmatch, os.listdir(self._directory))):
                if parts[0] not in self._files:
                    with suppress(FileNotFoundError):
                        self._files[parts[0]] = _MmapFile(os.path.join(self._directory, parts[0]), parts)

    def _close(self, name: str) -> None:
        self._files.pop(name).close()
        self._keys = {}  # so that keys of files that are gone do not stay for ever

    def close(self) -> None:
        """Close the files, which stay open from one scrape to the next."""
        for file in self._files.values():
            file.close()
        self._files = {}


class _MmapFile:
    """One file, and the positions of its values.

    It stays open, so that no other file gets its inode, which tells it from a later file of the same name.
    """

    def __init__(self, path: str, parts: re.Match[str]) -> None:
        self.path = path
        self._parts = parts
        self._file = os.open(path, os.O_RDONLY)
        status = os.fstat(self._file)
        self._inode = status.st_ino
        self._size = status.st_size  # when it was last looked at
        self._is_logged = False
        #: Whether its values stay when its process has ended.
        self.is_lasting = not (parts["mode"] or "").startswith(("live", "all")) and not CHILD.fullmatch(
            parts["identifier"]
        )
        self._forget()

    def _forget(self) -> None:
        self.contents = FileContents(
            self._parts["kind"].partition("_")[0], self._parts["mode"] or "", self._parts["identifier"]
        )
        self._end = FIRST_ENTRY
        self._format = [f"={FIRST_ENTRY}x"]
        self._layout = struct.Struct("")
        #: The keys, if prometheus_client's reader has read them.
        self._fallback_keys: list[str] | None = None

    def is_current(self) -> bool:
        """Whether the path still leads to this file."""
        try:
            return os.stat(self.path).st_ino == self._inode
        except FileNotFoundError:
            return False

    def was_cut(self) -> bool:
        """Whether it has become shorter since the last time; only another process does that."""
        size = os.fstat(self._file).st_size
        is_shorter, self._size = size < self._size, size
        return is_shorter

    def restore(self) -> None:
        """Write the file again, unless there is another one. Raises what is raised if it cannot be read or written."""
        data = os.pread(self._file, os.fstat(self._file).st_size, 0)
        end = used_bytes(data)
        list(entries(data, end))
        new = f"{self.path}.{os.getpid()}.new"
        try:
            with open(new, "wb") as file:
                file.write(data[:end])
            os.link(new, self.path)
        finally:
            with suppress(OSError):
                os.remove(new)

    def close(self) -> None:
        os.close(self._file)

    def read(self, keys: dict[bytes, SampleKey]) -> None:
        """Bring :attr:`contents` up to date; it is a new object if it can no longer be extended."""
        try:
            self._read(keys)
        except Exception as error:  # noqa: BLE001  # whatever is in this file, the others are read
            self._read_with_prometheus_client(error)

    def _read(self, keys: dict[bytes, SampleKey]) -> None:
        data = os.pread(self._file, max(self._end, _HEAD), 0)
        end = used_bytes(data)
        if end > len(data):
            data = os.pread(self._file, end, 0)
        if end != self._end:
            self._read_keys(data, end, keys)
        values = self._layout.unpack_from(data)
        if self.contents.kind == "gauge":
            self.contents.values, self.contents.timestamps = values[::2], values[1::2]
        else:
            self.contents.values = values

    def _read_keys(self, data: bytes, end: int, keys: dict[bytes, SampleKey]) -> None:
        """Parse the entries that are new, and keep the positions of their values."""
        value_format = "xdd" if self.contents.kind == "gauge" else "xd8x"
        position = self._end
        added, steps = [], []
        for text, value in entries(data, end, position):
            key = keys.get(text)
            if key is None:
                key = keys[text] = SampleKey.parse(text)
            added.append(key)
            steps.append(f"{value - position}{value_format}")
            position = value + 16
        if self._fallback_keys:
            self._forget()
        self.contents.keys += added
        self._format += steps
        self._layout = struct.Struct("".join(self._format))
        self._end = position

    def _read_with_prometheus_client(self, error: Exception) -> None:
        """Read what prometheus_client's own reader can, without keeping positions."""
        size = os.fstat(self._file).st_size
        texts: list[str] = []
        keys, values, timestamps = [], [], []
        try:
            rows = MmapedDict.read_all_values_from_file(self.path)  # type: ignore[no-untyped-call]
            for text, value, timestamp, _ in rows:
                keys.append(SampleKey.parse(text.encode()))
                texts.append(text)
                values.append(value)
                timestamps.append(timestamp)
        except Exception as second:  # noqa: BLE001  # as above
            error = second
        # An empty file is one that its worker is just making, or was killed while it made it.
        if size and not self._is_logged:
            self._is_logged = True
            logger.warning("%s cannot be read beyond its entry %d: %s", self.path, len(texts), error)
        if texts != self._fallback_keys:
            self._forget()
            self._fallback_keys = texts
            self.contents.keys = keys
        self.contents.values, self.contents.timestamps = values, timestamps
