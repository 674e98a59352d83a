"""Keeps the numbers of processes that have ended, and not their files.

An application may fork, or start Python programs, which have files of their own named by their pids. They would
become more and more, and a file system in memory would be full one day.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.multiprocess.identity import ENDED, FILE, PROCESS
from hr_prometheus.multiprocess.mmap_format import contents, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hr_prometheus.multiprocess.mmap_format import Timed

logger = logging.getLogger("hr_prometheus")

#: How a process's numbers join those that have ended before it. Gauges that are not here speak of a process that is
#: no more, and end with it.
_JOIN: Mapping[str, Callable[[Timed, Timed], Timed]] = {
    **dict.fromkeys(("counter", "summary", "histogram", "gauge_sum"), lambda a, b: (a[0] + b[0], 0.0)),
    "gauge_min": min,
    "gauge_max": max,
    "gauge_mostrecent": lambda a, b: max(a, b, key=lambda timed: timed[1]),
}


def join_ended(directory: str) -> None:
    """Replace the files of processes that have ended, workers excepted, by one of each kind for all of them.

    What there is no room for stays as it is, which is logged.
    """
    ended = defaultdict(list)
    for name in os.listdir(directory):
        parts = FILE.fullmatch(name)
        process = parts and PROCESS.fullmatch(parts["identifier"])
        if parts and process and not _is_alive(int(process["pid"])):
            ended[parts["kind"]].append(os.path.join(directory, name))
    for kind, paths in ended.items():
        try:
            if kind in _JOIN:
                target = os.path.join(directory, f"{kind}_{ENDED}.db")
                _replace(target, packed(_joined([target, *paths], _JOIN[kind])))
            for path in paths:
                os.remove(path)
        except OSError as error:
            logger.warning("The files of processes that have ended stay in %s: %s", directory, error)
            return


def _joined(paths: list[str], join: Callable[[Timed, Timed], Timed]) -> dict[str, Timed]:
    joined: dict[str, Timed] = {}
    for path in paths:
        for key, timed in (contents(path) or {}).items():
            joined[key] = join(joined[key], timed) if key in joined else timed
    return joined


def _replace(path: str, data: bytes) -> None:
    """Write a file anew: whole, or not at all. Without memory mapping, so that a lack of room is an error and no death."""
    new = f"{path}.new"
    try:
        with open(new, "wb") as file:
            file.write(data)
        os.replace(new, path)
    except OSError:
        with suppress(FileNotFoundError):
            os.remove(new)
        raise


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's, or no pid at all
        return True
    return True
