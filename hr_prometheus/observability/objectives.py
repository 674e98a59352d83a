"""Service-level objectives: what share of the requests must go well, of a whole application or of a route."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from hr_prometheus.errors import SettingError, did_you_mean
from hr_prometheus.labels.labels import MALFORMED, UNMATCHED
from hr_prometheus.labels.policies import ALL
from hr_prometheus.labels.resources import escaped
from hr_prometheus.observability.promql import example, of_route
from hr_prometheus.observability.yaml_text import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hr_prometheus.metrics import Metric
    from hr_prometheus.observability.promql import Source
    from hr_prometheus.observability.route_table import Row

#: Percent of the requests, for an application that says nothing else.
DEFAULT_OBJECTIVE = "99.9"
# 0.999 is meant as 99.9, and no service is meant to fail more often than not.
_LARGEST = Decimal("0.5")


@dataclass(frozen=True)
class Objective:
    """*budget* is the share of the requests of *route* (``*``: of all others) that may go wrong.

    Its requests are those that the matchers of one of *selections* select, and those of none of *left_out*. *path*,
    *method* and *host* are the labels that one of them can have.
    """

    route: str
    budget: Decimal
    selections: tuple[tuple[str, ...], ...]
    left_out: tuple[tuple[str, ...], ...]
    path: str
    method: str
    host: str = ""

    def rate(self, source: Source, metric: Metric, window: str, *matchers: str, suffix: str = "") -> str:
        """Return the rate of a metric of its requests, with more *matchers*, by job."""

        def of(selection: tuple[str, ...]) -> str:
            return f"rate({source.where(*selection, *matchers).series(metric, suffix)}[{window}])"

        chosen = "\n  or ".join(map(of, self.selections))
        left_out = "".join(f"\n  unless {of(each)}" for each in self.left_out)
        return f"sum by (job) (\n  {chosen}{left_out}\n)"


def parse_objectives(texts: Iterable[str]) -> dict[str, Decimal]:
    """Read ``PERCENT`` and ``NAME=PERCENT``; return the budgets, as shares, by name, with ``*`` for all other routes."""
    budgets: dict[str, Decimal] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            budget = 1 - Decimal(number) / 100
            is_share = 0 < budget < 1
        except InvalidOperation:
            is_share = False
        if not is_share or (equals and not name):
            raise SettingError(
                "objective",
                f'--objective "{text}"',
                " is not understood. Expected a percentage between 0 and 100, such as 99.9 for the "
                "application or get_cell=99.5 for the route of that name.",
                (text,),
            )
        if budget > _LARGEST:
            problem = " is below 50. Expected percent of the requests that must go well, for example 99.9."
            raise SettingError("objective", f'--objective "{text}"', problem, (text,))
        if (name or ALL) in budgets:
            problem = ": there is another one for the same requests. Remove one."
            raise SettingError("objective", f'--objective "{text}"', problem, (text,))
        budgets[name or ALL] = budget
    return {ALL: 1 - Decimal(DEFAULT_OBJECTIVE) / 100} | budgets


def objectives(budgets: dict[str, Decimal], table: Sequence[Row], metrics_path: str) -> list[Objective]:
    """Return the objective of the application and those of its routes.

    A route with an objective of its own is judged by that one alone; if each has one, the application has none. Scrapes,
    and requests which no route has matched, belong to none: neither a scanner nor Prometheus shall make an outage look
    small.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for a route that is not in the table.
    """
    named = sorted({row.name for row in table if row.name})
    found = []
    for name in sorted(budgets.keys() - {ALL}):
        rows = [row for row in table if row.name == name]
        if not rows:
            raise SettingError(
                "objective",
                f'--objective "{name}={percent(1 - budgets[name])}"',
                f': the application has no route named "{name}".{did_you_mean(name, named)} '
                f"Named routes: {', '.join(named) or 'none'}."
                if table
                else " names a route, whose labels only the application tells. Give its TARGET as well.",
                (name,),
            )
        selections = tuple(of_route(row, table) for row in rows)
        labels = example(rows[0]), _method(rows[0]), rows[0].host
        found.append(Objective(name, budgets[name], selections, (), *labels))
    nobody = [UNMATCHED, MALFORMED, metrics_path]
    others = [row for row in table if row.name not in budgets and example(row) not in nobody]
    if table and not others:
        return found
    labels = (example(others[0]), _method(others[0]), others[0].host) if others else ("/", "GET", "")
    selection = (f"path!~{quoted('|'.join(map(escaped, nobody)))}",)
    left_out = tuple(selection for objective in found for selection in objective.selections)
    return [Objective(ALL, budgets[ALL], (selection,), left_out, *labels), *found]


def _method(row: Row) -> str:
    return "GET" if "*" in row.methods else row.methods[0]


def percent(share: Decimal) -> str:
    """Return a share as people write percentages."""
    return f"{(share * 100).normalize():f}"
