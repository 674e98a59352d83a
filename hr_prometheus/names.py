"""The names under which the request metrics are exported: the published ones, and those of other people's dashboards.

A name set is applied when a scrape is written. What a request is counted in has no name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.errors import SettingError, did_you_mean
from hr_prometheus.metrics import (
    IN_PROGRESS,
    OUTCOME,
    REQUEST_COUNT,
    REQUEST_FIRST_BYTE_LATENCY,
    REQUEST_LATENCY,
    REQUEST_SIZE,
    REQUESTS_IN_PROGRESS,
    RESPONSE_SIZE,
    SPLITTING_LABELS,
    STATUS,
    URL_SCHEME,
)

if TYPE_CHECKING:
    from hr_prometheus.metric import Metric


@dataclass(frozen=True, eq=False)
class NameSet:
    """Names of metrics and of their labels; what is not in *labels* keeps its name.

    A metric with an empty name is left out. One that no chosen set has in its *families* keeps its name and labels. Latencies
    have the *latency_labels* as well, and requests in progress the *progress_labels*.
    """

    families: Mapping[Metric, str]
    labels: Mapping[str, str]
    latency_labels: tuple[str, ...] = (OUTCOME,)
    progress_labels: tuple[str, ...] = ()

    def hidden_labels(self, metric: Metric) -> frozenset[str]:
        """Return the labels of a metric's series that this set adds up over."""
        shown = self.latency_labels if metric in IN_PROGRESS else self.progress_labels
        return SPLITTING_LABELS.difference(shown) if metric in _SPLIT else frozenset()


_SPLIT = {*IN_PROGRESS, *IN_PROGRESS.values()}

#: The names of hr-prometheus 0.2.0.
SEED = NameSet({}, {})
#: Those that most dashboards and most libraries for Python have.
HTTP = NameSet(
    {
        REQUEST_COUNT: "http_requests",
        REQUEST_LATENCY: "http_request_duration_seconds",
        REQUESTS_IN_PROGRESS: "http_requests_in_progress",
        REQUEST_SIZE: "http_request_size_bytes",
        RESPONSE_SIZE: "http_response_size_bytes",
        REQUEST_FIRST_BYTE_LATENCY: "http_request_first_byte_seconds",
    },
    {"path": "handler"},
)
#: OpenTelemetry's, as Prometheus writes them:
#: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#http-server
OTEL = NameSet(
    {
        REQUEST_LATENCY: "http_server_request_duration_seconds",
        REQUESTS_IN_PROGRESS: "http_server_active_requests",
        REQUEST_COUNT: "",  # it is the count of the durations
    },
    {"method": "http_request_method", "path": "http_route", STATUS: "http_response_status_code"},
    latency_labels=(STATUS, URL_SCHEME),
    progress_labels=(URL_SCHEME,),
)
NAME_SETS = {"seed": SEED, "http": HTTP, "otel": OTEL}
DEFAULT_NAMES = ("seed",)


class Naming(NamedTuple):
    """How the metrics of a store are named: the *prefix* before each name, and the name sets."""

    prefix: str = ""
    sets: tuple[str, ...] = DEFAULT_NAMES

    @property
    def is_by_status(self) -> bool:
        """Whether a name set tells latencies apart by status."""
        return any(STATUS in NAME_SETS[each].latency_labels for each in self.sets)


DEFAULT_NAMING = Naming()


@dataclass(frozen=True, eq=False)  # compared by identity, as metrics are
class Export:
    """One family that a metric is exported as.

    *name* is that of the family, with its prefix; *labels* are the names of the metric's own labels.
    """

    metric: Metric
    name: str
    labels: tuple[str, ...]
    names: NameSet

    def labels_of(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the labels of a series with the names of this export, and without those that it adds up over."""
        own = len(self.labels)
        if len(labels) == own:
            return labels
        hidden, renamed = self.names.hidden_labels(self.metric), self.names.labels
        kept = labels[:own]
        for name, value in zip(labels[own::2], labels[own + 1 :: 2], strict=True):
            if name not in hidden:
                kept += (renamed.get(name, name), value)
        return kept


def named_labels(names: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Return all labels of a series by name; *names* are those of its metric's own labels."""
    own = len(names)
    return {**dict(zip(names, labels, strict=False)), **dict(zip(labels[own::2], labels[own + 1 :: 2], strict=True))}


@cache
def exports_of(metric: Metric, naming: Naming) -> tuple[Export, ...]:
    """Return the families that a metric is exported as: one for each name set that has a name for it, or else its own."""
    sets = [NAME_SETS[each] for each in naming.sets]
    if not any(metric in names.families for names in sets):
        sets = [SEED]
    exports = []
    for names in sets:
        name = metric.name if names is SEED else names.families.get(metric)
        if name:
            labels = tuple(names.labels.get(label, label) for label in metric.labels)
            exports.append(Export(metric, naming.prefix + name, labels, names))
    return tuple(exports)


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of name sets without repetitions. Raises :exc:`~hr_prometheus.errors.ConfigurationError`."""
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    if not is_list or not names:
        problem = ": no name sets. Expected a list of them, for example "
        advice = '["seed", "http"].'
        raise SettingError("names", f"names={names!r}", problem, advice=advice, command_advice="seed http.")
    for each in names:
        if not isinstance(each, str) or each not in NAME_SETS:
            hint = did_you_mean(each, NAME_SETS) if isinstance(each, str) else ""
            problem = f": unknown name set {each!r}.{hint} Expected {', '.join(NAME_SETS)}."
            raise SettingError("names", f"names={names!r}", problem)
    return tuple(dict.fromkeys(names))


def checked_prefix(prefix: str) -> str:
    """Return a metric prefix. Raises :exc:`~hr_prometheus.errors.ConfigurationError` if no name can begin with it."""
    if not isinstance(prefix, str) or (prefix and not re.fullmatch("[a-zA-Z_:][a-zA-Z0-9_:]*", prefix)):
        raise SettingError(
            "metric_prefix",
            f"metric_prefix={prefix!r}",
            " cannot begin a metric's name. Expected letters, digits and underscores, with no digit first, for example ",
            advice='"myapp_".',
            command_advice="myapp_.",
        )
    return prefix
