"""How the files of a process's numbers are named, and how a scrape names the process.

prometheus_client names the files by an identifier: ``counter_<identifier>.db``. A worker's identifier is its slot,
``w0``, so that its successor goes on where it has ended. ``w0-4711`` is a process that the application has forked in
that worker, and a bare ``4711`` a Python program that it has started, which inherits the directory and names its
files by its pid. The letter keeps pid 3, which a container has, apart from slot 3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Matches the names of prometheus_client's files.
FILE: Final = re.compile(
    r"(?P<kind>counter|summary|histogram|gauge_(?P<mode>(?:live)?(?:all|min|max|sum|mostrecent)))"
    r"_(?P<identifier>.+)\.db"
)
#: Matches the identifiers of processes that are no workers.
PROCESS: Final = re.compile(r"(?:w[0-9]+-)?(?P<pid>[0-9]+)")
#: The identifier under which the numbers of such processes are kept once they have ended.
ENDED: Final = "ended"


def identifier(slot: int) -> str:
    """Return the identifier of a worker."""
    return f"w{slot}"


def shown_as(identifier: str) -> str:
    """Return the value of the label ``worker`` for what stands in files with this identifier."""
    return identifier[1:] if identifier.startswith("w") else f"pid-{identifier}"


def with_worker(labels: Mapping[str, str], worker: str) -> dict[str, str]:
    """Return *labels* and the label ``worker``; one of that name that is there becomes ``exported_worker``.

    So does Prometheus with labels of a target's that it has itself.
    """
    shown = dict(labels)
    if "worker" in shown:
        kept = "exported_worker"
        while kept in shown:
            kept = f"exported_{kept}"
        shown[kept] = shown.pop("worker")
    shown["worker"] = worker
    return shown
