"""Where prometheus_client's metrics keep their values: in a worker in the slot's files, in the supervisor in memory.

prometheus_client chooses its ``ValueClass`` by an environment variable when it is imported, and a metric keeps the class
that it was made with. So a worker calls :func:`enter_multiprocess_mode` before it imports anything of the application's.
That prometheus_client is imported by then does no harm: the collectors that it registers itself, of the process and of
the garbage collector, have no such values.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import values

from hr_prometheus.multiprocess.identity import identifier
from hr_prometheus.multiprocess.value_file import ValueFile

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_OLD_VARIABLE = "prometheus_multiproc_dir"


def enter_multiprocess_mode(directory: str, slot: int) -> None:
    """Have every metric made from now on keep its values in the files of *slot* in *directory*."""
    os.environ[VARIABLE] = directory
    # The value class takes its files by this name. prometheus_client's own do not look at the room.
    values.MmapedDict = ValueFile  # type: ignore[assignment,attr-defined]
    values.ValueClass = values.MultiProcessValue(process_identifier(slot))  # type: ignore[no-untyped-call]


def leave_multiprocess_mode() -> str | None:
    """Have every metric made from now on keep its values in memory. Return the directory that the environment named.

    The variables are removed from the environment.
    """
    directories = [os.environ.pop(variable, None) for variable in (VARIABLE, _OLD_VARIABLE)]
    values.ValueClass = values.MutexValue
    return directories[0] or directories[1] or None


def process_identifier(slot: int) -> Callable[[], str]:
    """Return the function that gives prometheus_client the identifier of the current process.

    A process that the application forks has files of its own: two processes that write to one file break it.
    """
    worker, pid = identifier(slot), os.getpid()

    def current() -> str:
        current_pid = os.getpid()
        return worker if current_pid == pid else f"{worker}-{current_pid}"

    return current
