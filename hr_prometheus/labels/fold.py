"""Where a path label is folded: a route has a budget of labels, and further ones are folded into its template."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("hr_prometheus")


class PathBudget:
    """The path labels of one route pattern, at most *limit*.

    *on_fold* is called with the *template* for each request that is folded into it. The warning of the first one offers to
    fix the *parameter* of the route *name*.
    """

    __slots__ = ("_has_warned", "_limit", "_name", "_on_fold", "_parameter", "_template", "labels")

    def __init__(self, limit: int, template: str, on_fold: Callable[[str], None], *, name: str, parameter: str) -> None:
        #: The labels that have a place.
        self.labels: set[str] = set()
        self._limit, self._template, self._on_fold = limit, template, on_fold
        self._name, self._parameter = name, parameter
        self._has_warned = False

    def admit(self, label: str) -> bool:
        """Give a new label a place; return whether one was free."""
        if len(self.labels) >= self._limit:
            return False
        self.labels.add(label)
        return True

    def fold(self) -> None:
        """Count a request that is folded, and warn of the first one."""
        if not self._has_warned:
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
        self._on_fold(self._template)
