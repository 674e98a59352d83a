"""The files below some directories that match patterns, and which of them have changed since the last look."""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from heapq import nlargest
from time import time_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DEFAULT_PATTERNS = ("*.py",)
#: Names of directories without sources of the application, beside those that begin with a dot.
_IGNORED_DIRECTORIES = frozenset({"__pycache__", "node_modules", "site-packages"})
#: The file that marks a virtual environment, see PEP 405.
_ENVIRONMENT = "pyvenv.cfg"
#: Nanoseconds for which the time of a directory may stay the same although an entry is added: file systems count in ticks.
_TICK = 50_000_000
#: How many files are the newest: those that a person edits, as a rule.
_NEWEST = 30

_Stamp = tuple[int, int, int]
#: The stamp of a file that has not been looked at.
_NEW = (-1, -1, -1)


@dataclass(frozen=True)
class Saves:
    """The paths that were written, added or removed: those whose content *changed*, and all that were *touched*."""

    changed: list[str]
    touched: list[str]


class SourceFiles:
    """The files below *directories* whose name matches one of *patterns*, but none of *exclude*.

    A pattern with a slash is for the path, relative to the current directory; one of *exclude* is for directories as well.
    Hidden files and directories, caches, virtual environments and ``node_modules`` are left out, unless a directory is given
    itself. Of links to directories only those to packages are followed, because others may lead to the whole disk.
    """

    def __init__(
        self, directories: Iterable[str], patterns: Sequence[str] = DEFAULT_PATTERNS, exclude: Sequence[str] = ()
    ) -> None:
        self._patterns, self._exclude = (tuple(map(_comparable, each)) for each in (patterns, exclude))
        self._roots = frozenset(map(os.path.abspath, directories))
        #: The time of each directory when its entries were read; 0 if they have to be read again.
        self._directories: dict[str, int] = dict.fromkeys(self._roots, 0)
        #: The directories of the files that links lead to, by link.
        self._linked_directories: dict[str, str] = {}
        self._stamps: dict[str, _Stamp] = {}
        self._newest: list[str] = []
        self._digests: dict[str, bytes | None] = {}
        self._touched: set[str] = set()
        self.look()
        self.take_saves()

    @property
    def number(self) -> int:
        """How many files there are."""
        return len(self._stamps)

    @property
    def directories(self) -> list[str]:
        """The directories that exist, with those below them, and those of files that links lead to."""
        every = dict.fromkeys((*self._directories, *self._linked_directories.values()))
        return [directory for directory in every if os.path.isdir(directory)]

    def look(self) -> bool:
        """Look at times and sizes, for a few microseconds a file. Return whether one differs from the last look."""
        for directory, time in list(self._directories.items()):
            if _time(directory) != time:
                self._read_directory(directory)
        different = [path for path, stamp in self._stamps.items() if _stamp(path) != stamp]
        for path in different:
            now = _stamp(path)
            if now is None:
                del self._stamps[path]
                self._linked_directories.pop(path, None)
            else:
                self._stamps[path] = now
        self._touched.update(different)
        if different:
            self._newest = nlargest(_NEWEST, self._stamps, key=self._stamps.__getitem__)
        return bool(different)

    def newest_differ(self) -> bool:
        """Whether one of the files that were written last differs from the last look."""
        return any(_stamp(path) != self._stamps[path] for path in self._newest)

    def take_saves(self) -> Saves:
        """Return what has been saved since the last call, by what :meth:`look` has seen; it reads these files."""
        touched = sorted(self._touched)
        self._touched.clear()
        changed = []
        for path in touched:
            digest = _digest(path)
            if digest != self._digests.get(path):
                changed.append(path)
            self._digests[path] = digest
        return Saves(changed, touched)

    def _read_directory(self, directory: str) -> None:
        """Note the files of a directory, and read the directories in it that are new."""
        time = _time(directory)
        self._directories[directory] = 0 if time_ns() - time < _TICK else time
        try:
            with os.scandir(directory) as entries:
                for entry in sorted(entries, key=os.DirEntry.is_symlink):  # what a link leads to may be watched already
                    if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
                        if entry.path not in self._directories and not self._is_ignored(entry):
                            self._read_directory(entry.path)
                    elif entry.path not in self._stamps and self._is_watched(entry):
                        self._stamps[entry.path] = _NEW
                        if entry.is_symlink():
                            self._linked_directories[entry.path] = os.path.dirname(os.path.realpath(entry.path))
        except OSError:  # it is gone, or not for us to read
            if directory not in self._roots:  # which may come back
                del self._directories[directory]

    def _is_ignored(self, entry: os.DirEntry[str]) -> bool:
        return (
            entry.name.startswith(".")
            or entry.name in _IGNORED_DIRECTORIES
            or _matches(entry, self._exclude)
            or os.path.exists(os.path.join(entry.path, _ENVIRONMENT))
            or (entry.is_symlink() and not self._is_other_package(entry.path))
        )

    def _is_other_package(self, link: str) -> bool:
        """Whether a link leads to a package that is not watched already, as one would that leads to itself."""
        path = os.path.realpath(link)
        return os.path.isfile(os.path.join(path, "__init__.py")) and path not in map(
            os.path.realpath, self._directories
        )

    def _is_watched(self, entry: os.DirEntry[str]) -> bool:
        is_hidden = entry.name.startswith(".") or entry.name.endswith("~")  # an editor's swap file or backup
        return (
            not is_hidden
            and _matches(entry, self._patterns)
            and not _matches(entry, self._exclude)
            and os.path.isfile(entry.path)  # a link may lead nowhere, or to itself
        )


def _comparable(pattern: str) -> str:
    """Return a pattern with a slash as one of absolute paths."""
    pattern = pattern.rstrip(os.sep) or os.sep
    if os.sep not in pattern:
        return pattern
    return os.path.normpath(os.path.join(glob.escape(os.getcwd()), pattern))


def _matches(entry: os.DirEntry[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch(entry.path if os.sep in pattern else entry.name, pattern) for pattern in patterns)


def _time(directory: str) -> int:
    """Return the time of the last change of a directory's entries; 0 if it is not there."""
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return 0


def _stamp(path: str) -> _Stamp | None:
    """Return what differs after a write; ``None`` for a file that is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _digest(path: str) -> bytes | None:
    """Return a hash of a file's content; ``None`` for one that cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError:
        return None
