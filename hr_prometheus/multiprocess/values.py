"""Where prometheus_client's own metrics keep their values: in the slot's files in a worker, nowhere in the supervisor.

prometheus_client chooses when it is imported, by an environment variable, and a metric keeps what was chosen when
it was made. So a worker calls :func:`use_slot` before it imports anything of the application's. That
prometheus_client is imported by then does no harm: the metrics that it registers itself, of the process and of the
garbage collector, have no such values.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import values

from hr_prometheus.multiprocess import identity

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_OLD_VARIABLE = "prometheus_multiproc_dir"


def take_base() -> str | None:
    """Return the directory that the environment names, if any, and take it out of the environment.

    For the supervisor, which has numbers of its own, and whose metrics shall leave no files.
    """
    named = [os.environ.pop(variable, None) for variable in (VARIABLE, _OLD_VARIABLE)]
    values.ValueClass = values.MutexValue
    return named[0] or named[1] or None


def use_slot(directory: str, slot: int) -> None:
    """Have every metric made from now on keep its values in the files of *slot* in *directory*."""
    os.environ[VARIABLE] = directory
    values.ValueClass = values.MultiProcessValue(identify(slot))  # type: ignore[no-untyped-call]


def identify(slot: int) -> Callable[[], str]:
    """Return the function that tells prometheus_client what the files of this process are named by.

    A process that the application forks has files of its own: two processes which write to one file break it.
    """
    own, pid = identity.identifier(slot), os.getpid()

    def identifier() -> str:
        now = os.getpid()
        return own if now == pid else f"{own}-{now}"

    return identifier
