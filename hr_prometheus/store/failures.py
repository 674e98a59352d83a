"""Errors of our own and of monitors and collectors: counted, logged once a kind, and never raised."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.metrics import ERRORS
from hr_prometheus.store.store import self_store

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from hr_prometheus.metrics import Metric
    from hr_prometheus.store.cells import Page

logger = logging.getLogger("hr_prometheus")


class Failures:
    """The errors in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._cells: dict[tuple[Metric, str], tuple[Page, int]] = {}
        self._logged: set[tuple[str, type[BaseException]]] = set()

    def failed(self, where: str, error: BaseException) -> None:
        """Count an exception that no client may see, and log it if it is the first of its kind."""
        kind = (where, type(error))
        if kind not in self._logged:
            self._logged.add(kind)
            logger.error(
                "Recording a request failed (%s); the request itself goes on. Further errors of this kind "
                "are only counted.",
                where,
                exc_info=error,
            )
        self.count(ERRORS, where)

    def count(self, metric: Metric, label: str) -> None:
        """Add one to a counter of ours with one label."""
        cells = self._cells.get((metric, label))
        if cells is None:
            # Where the application has taken the name, or a disk is full, there is no number, but no error either.
            with suppress(ConfigurationError, OSError):
                cells = self._cells[metric, label] = self_store(self._registry).allocate(metric, (label,))
        if cells is not None:
            page, index = cells
            page[index] += 1.0
