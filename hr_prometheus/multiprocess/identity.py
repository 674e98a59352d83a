"""How a process is named: in the files of its numbers, and in the label ``worker`` of a scrape.

prometheus_client names its files by an identifier of the process: ``counter_<identifier>.db``. That of a worker is its
slot, ``w0``, so that the next worker in the slot goes on with its files. ``w0-4711`` is a process that the application
has forked in that worker. ``4711`` is a Python program that it has started, which inherits the directory and names its
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
#: Matches the identifiers of processes that are not workers.
CHILD: Final = re.compile(r"(?:w[0-9]+-)?(?P<pid>[0-9]+)")
#: The identifier of the files to which those of such processes are compacted when they have ended.
COMPACTED: Final = "ended"


def identifier(slot: int) -> str:
    """Return the identifier of the worker in a slot."""
    return f"w{slot}"


def worker_label(identifier: str) -> str:
    """Return the value of the label ``worker`` for the files with this identifier."""
    return identifier[1:] if identifier.startswith("w") else f"pid-{identifier}"


def add_worker_label(labels: Mapping[str, str], worker: str) -> dict[str, str]:
    """Return *labels* with the label ``worker``. One of the application's of that name becomes ``exported_worker``.

    Prometheus renames the labels of a target in the same way where they collide with its own.
    """
    labelled = dict(labels)
    if "worker" in labelled:
        name = "exported_worker"
        while name in labelled:
            name = f"exported_{name}"
        labelled[name] = labelled.pop("worker")
    labelled["worker"] = worker
    return labelled
