"""Errors of monitors, of collectors and of our own: counted, logged once a kind, and never raised."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.metrics import ERRORS
from hr_prometheus.store.store import self_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from hr_prometheus.metric import Metric
    from hr_prometheus.store.cells import Page

logger = logging.getLogger("hr_prometheus")


class Failures:
    """The errors that are counted in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = ref(registry)  # weak, because it is the key of failures_of
        self._cells: dict[tuple[Metric, str], tuple[Page, int]] = {}
        self._logged: set[tuple[str, type[BaseException]]] = set()

    def report(self, where: str, error: BaseException, event: str = "") -> None:
        """Count an error, and log it if it is the first of its type with this *event*.

        *where* is the label of its counter. *event* is what has happened, by default that a request is not recorded.
        """
        event = event or f"Recording a request failed ({where}); the request itself continues"
        if (event, type(error)) not in self._logged:
            self._logged.add((event, type(error)))
            logger.error("%s. Further errors of this kind are only counted.", event, exc_info=error)
        self.count(ERRORS, where)

    def count(self, metric: Metric, label: str, number: float = 1.0) -> None:
        """Add a *number* to a counter of ours with one label."""
        self.counter(metric, label, number)()

    def counter(self, metric: Metric, label: str, number: float = 1.0) -> Callable[[], None]:
        """Return what adds a *number* to a counter of ours with one label."""
        cells = self._cells.get((metric, label))
        if cells is None and (registry := self._registry()) is not None:
            # Where the application has taken the name, or a disk is full, there is no number, but no error either.
            with suppress(ConfigurationError, OSError):
                cells = self._cells[metric, label] = self_store(registry).allocate(metric, (label,))
        if cells is None:
            return lambda: None
        page, index = cells

        def add() -> None:
            page[index] += number

        return add


_failures: WeakKeyDictionary[CollectorRegistry, Failures] = WeakKeyDictionary()


def failures_of(registry: CollectorRegistry) -> Failures:
    """Return the errors that are counted in *registry*."""
    failures = _failures.get(registry)
    return _failures.setdefault(registry, Failures(registry)) if failures is None else failures
