"""Where a path label is folded: a route has a budget of labels, and further ones are folded into its template."""

from __future__ import annotations

import errno
import fcntl
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
    """The path labels that the processes of a service have admitted together, in a file that they share by its *descriptor*.

    A process that has a new label appends it to the file, and reads what others have appended. The first labels of a route, up
    to its budget, have a place. All processes read the same order, so they agree without a lock that one of them could keep.
    Successors of a process find its labels there. The file has no name, so no other process can remove it.
    """

    def __init__(self, descriptor: int) -> None:
        self._file = descriptor
        self._status = os.fstat(descriptor)
        os.set_inheritable(descriptor, False)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
        self._offset = 0  # bytes that have been read
        #: The labels that have a place, by budget: the number of its places, and the host and template of its route.
        self._labels: defaultdict[tuple[int, str, str], set[str]] = defaultdict(set)

    def labels_of(self, limit: int, host: str, template: str) -> set[str]:
        """Return the labels that have a place in this budget. The set grows with what is read."""
        return self._labels[limit, host, template]

    def admit(self, limit: int, host: str, template: str, label: str) -> None:
        """Ask for a place in a budget. Raises :exc:`OSError` if the file cannot be written, or the application has closed it."""
        labels = self._labels[limit, host, template]
        self._read()
        if label not in labels and len(labels) < limit:
            # An empty line comes before it, so that it does not complete one that was cut short.
            line = b"\n" + json.dumps([limit, host, template, label]).encode() + b"\n"
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._read()

    def _read(self) -> None:
        """Read what was appended since the last time."""
        status = os.fstat(self._file)
        if not os.path.samestat(status, self._status):  # the descriptor is that of another file now
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        text = os.pread(self._file, status.st_size - self._offset, self._offset)
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


def share_labels(descriptor: int) -> None:
    """Have one budget with all processes that share a file by this *descriptor*. To be called before the first request."""
    global _shared  # noqa: PLW0603  # a process is a worker of one service
    _shared = SharedLabels(descriptor)


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
