"""How many more files a process must be able to open, so that it can serve and count."""

from __future__ import annotations

import os

from hr_prometheus.errors import ServingError

#: For a worker of a new service, and for its successor: better one that hardly can than none.
LEAST_DESCRIPTORS, LEAST_OF_SUCCESSOR = 8, 2


def check_descriptors(least: int, who: str = "a worker") -> None:
    """Raise :exc:`~hr_prometheus.errors.ServingError` if this process cannot open so many more files."""
    spare: list[int] = []
    try:
        while len(spare) < least:
            spare.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise ServingError(
            f"{who} can open no more than {len(spare)} further files: {error.strerror}. Expected room for "
            f"{least}, for workers, connections and new series; raise the limit, for example with ulimit -n 1024."
        ) from error
    finally:
        for each in spare:
            os.close(each)
