"""Where a path label is folded: a route has a budget of labels, and further ones are folded into its template."""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("hr_prometheus")


class SharedLabels:
    """The path labels that the processes of a service have admitted together, in the file at *path*.

    A process that has a new label appends it to the file, and reads what others have appended. The first labels of a route, up
    to its budget, have a place. All processes read the same order, so they agree without a lock that one of them could keep.
    Successors of a process find its labels there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0  # bytes that have been read
        #: The labels that have a place, by budget: the number of its places, and the host and template of its route.
        self._labels: defaultdict[tuple[int, str, str], set[str]] = defaultdict(set)

    def labels_of(self, limit: int, host: str, template: str) -> set[str]:
        """Return the labels that have a place in this budget. The set grows with what is read."""
        return self._labels[limit, host, template]

    def admit(self, limit: int, host: str, template: str, label: str) -> None:
        """Ask for a place in a budget. Raises :exc:`OSError` if the file cannot be read or written."""
        labels = self._labels[limit, host, template]
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._read(file)
            if label not in labels and len(labels) < limit:
                # An empty line comes before it, so that it does not complete one that was cut short.
                line = b"\n" + json.dumps([limit, host, template, label]).encode() + b"\n"
                if os.write(file, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
                self._read(file)
        finally:
            os.close(file)

    def _read(self, file: int) -> None:
        """Read what was appended since the last time."""
        size = os.fstat(file).st_size
        if size < self._offset:  # another process has cut or removed the file
            self._offset = 0
        text = os.pread(file, size - self._offset, self._offset)
        *lines, rest = text.split(b"\n")  # the rest is being written, or its writer was killed
        self._offset += len(text) - len(rest)
        for line in lines:
            with suppress(ValueError, TypeError):  # an empty line, or one that was cut short
                limit, host, template, label = json.loads(line)
                labels = self._labels[limit, host, template]
                if len(labels) < limit:
                    labels.add(label)


#: The labels of all processes of the service, if it has several; :func:`share_labels` sets them.
_shared: SharedLabels | None = None


def share_labels(directory: str) -> None:
    """Have one budget with all processes that call this with the same *directory*. To be called before the first request."""
    global _shared  # noqa: PLW0603  # a process is a worker of one service
    _shared = SharedLabels(os.path.join(directory, "labels"))


class Budget:
    """Labels that have a place, at most *limit*, in this process or in all that share their labels.

    It is that of the *template* in the domain *host*.
    """

    __slots__ = ("_host", "_limit", "_shared", "_template", "labels")

    def __init__(self, limit: int, host: str, template: str) -> None:
        self._shared = _shared
        #: The labels that have a place.
        self.labels = set() if _shared is None else _shared.labels_of(limit, host, template)
        self._limit, self._host, self._template = limit, host, template

    def admit(self, label: str) -> bool:
        """Give a label a place; return whether it has one."""
        if label in self.labels or self.is_spent:
            return label in self.labels
        if self._shared is None:
            self.labels.add(label)
        else:
            with suppress(OSError):  # without room for a label there is none for its series either
                self._shared.admit(self._limit, self._host, self._template, label)
        return label in self.labels

    @property
    def is_spent(self) -> bool:
        """Whether no further label will have a place."""
        return len(self.labels) >= self._limit


class PathBudget(Budget):
    """The path labels of one route pattern.

    *host* is the domain of the route's application. *fold_counter* is called with the *template* and returns
    what counts a request that is folded into it. The warning of the first one offers to fix the *parameter* of the route *name*.
    """

    __slots__ = ("_fold_counter", "_has_warned", "_name", "_parameter")

    def __init__(
        self,
        limit: int,
        host: str,
        template: str,
        fold_counter: Callable[[str], Callable[[], object]],
        *,
        name: str,
        parameter: str,
    ) -> None:
        super().__init__(limit, host, template)
        self._fold_counter = fold_counter
        self._name, self._parameter = name, parameter
        self._has_warned = False

    def fold(self) -> Callable[[], object]:
        """Count a request that is folded, and warn of the first one when the budget is spent. Return what counts the next."""
        if self.is_spent and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The route %s has used its budget of %d path labels; further paths are recorded as this template. "
                "To group a parameter's values: --fixed-route %s "
                "(as a library: fixed_routes_parameters={%r: [%r]}); for more labels: --path-budget (as a library: path_budget).",
                self._template,
                self._limit,
                shlex.quote(f"{self._name}={self._parameter}"),
                self._name,
                self._parameter,
            )
        count = self._fold_counter(self._template)
        count()
        return count
