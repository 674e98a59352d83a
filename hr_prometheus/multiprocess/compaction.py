"""Compacts the files of processes that have ended and were not workers: their numbers are kept, their files are not.

An application may fork, or start Python programs. Each has files of its own, named by its pid, which would fill a file
system in memory one day.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.multiprocess.identity import CHILD, COMPACTED, FILE
from hr_prometheus.multiprocess.mmap_format import pack, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hr_prometheus.multiprocess.mmap_format import TimedValue

logger = logging.getLogger("hr_prometheus")

#: How the values of two processes become one, by kind. Gauges of other modes describe a living process, and go with it.
_MERGE: Mapping[str, Callable[[TimedValue, TimedValue], TimedValue]] = {
    **dict.fromkeys(("counter", "summary", "histogram", "gauge_sum"), lambda a, b: (a[0] + b[0], 0.0)),
    "gauge_min": min,
    "gauge_max": max,
    "gauge_mostrecent": lambda a, b: max(a, b, key=lambda value: value[1]),
}


def compact(directory: str) -> None:
    """Replace the files of processes that have ended by one of each kind. Workers' files stay.

    If there is no room for that, the files stay, and a warning is logged.
    """
    paths = defaultdict(list)
    for name in os.listdir(directory):
        parts = FILE.fullmatch(name)
        child = parts and CHILD.fullmatch(parts["identifier"])
        if parts and child and not _is_alive(int(child["pid"])):
            paths[parts["kind"]].append(os.path.join(directory, name))
    for kind, merged in paths.items():
        try:
            if kind in _MERGE:
                target = os.path.join(directory, f"{kind}_{COMPACTED}.db")
                _replace(target, pack(_merge([target, *merged], _MERGE[kind])))
            for path in merged:
                os.remove(path)
        except OSError as error:
            logger.warning("The files of processes that have ended stay in %s: %s", directory, error)
            return


def _merge(paths: list[str], merge: Callable[[TimedValue, TimedValue], TimedValue]) -> dict[str, TimedValue]:
    merged: dict[str, TimedValue] = {}
    for path in paths:
        for key, value in (read_file(path) or {}).items():
            merged[key] = merge(merged[key], value) if key in merged else value
    return merged


def _replace(path: str, data: bytes) -> None:
    """Replace a file whole, or not at all. It is written without memory mapping: a lack of room is an error, not SIGBUS."""
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
    except (OSError, OverflowError):  # another user's process, or no pid
        return True
    return True
