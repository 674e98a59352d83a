"""The route table of an application: the labels and, at worst, the series of each route, before any request."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs
from aiohttp.web import View
from prometheus_client import CollectorRegistry

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.exposition.formats import PROTOBUF, TEXT
from hr_prometheus.labels.exclusions import covers
from hr_prometheus.labels.extra import ExtraLabels
from hr_prometheus.labels.methods import UNKNOWN, check_methods
from hr_prometheus.labels.policies import OTHER, Policies
from hr_prometheus.labels.resources import (
    MALFORMED,
    UNMATCHED,
    all_resources,
    escaped,
    hosts,
    label_regex,
    parameter_names,
    template,
)
from hr_prometheus.labels.unrecorded import is_recorded
from hr_prometheus.metrics import BASIC, FULL, HOST
from hr_prometheus.origins import sentence_of
from hr_prometheus.request.records import Records
from hr_prometheus.server.label_notices import policies_of, recorder_in
from hr_prometheus.store.bounds import BOTH, ONLY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.web import AbstractResource, AbstractRoute, Application

    from hr_prometheus.settings import Settings

logger = logging.getLogger("hr_prometheus")

#: The statuses that each label is counted with.
STATUSES = (200, 302, 400, 404, 500)
_USUAL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

#: Ends a warning about settings that other applications of a script share.
OF_ANOTHER = " It may be meant for another application of the script."


@dataclass(frozen=True, slots=True)
class Row:
    """One route pattern: the labels of its requests, and the most series that they can have.

    *parameters* maps each parameter to its policy. In *label* a parameter whose values are kept is ``<name>``. *regex* is a
    regular expression for a Prometheus matcher, which matches all path labels of the route. *methods* of a class-based view
    are those that its class defines. *labels* counts path labels. *series*, and their *bytes* in the text format, or with
    native histograms in protocol buffers, are those of all labels, extra ones as well, and methods (seven for ``*``), each
    answered with five statuses. *host* is the domain of the application that the route belongs to, if it has one.
    """

    methods: tuple[str, ...]
    name: str | None
    pattern: str
    parameters: dict[str, str]
    label: str
    regex: str
    labels: int
    series: int
    bytes: int
    host: str = ""


def settings_of(app: Application, settings: Settings) -> Settings:
    """Return the settings that hold for an application: its own ones, if it has the middleware already."""
    recorder = recorder_in(app)
    if recorder is None:
        return settings
    own: dict[str, Any] = {
        "path_budget": recorder.labels.path_budget,
        "detail": FULL if recorder.is_full else BASIC,
        "exclude": recorder.exclude,
        "exclude_methods": recorder.exclude_methods,
    }
    if recorder.records is not None:
        records = recorder.records
        own |= {
            "metric_prefix": records.naming.prefix,
            "names": records.naming.sets,
            "buckets": records.buckets.as_mapping(),
            "latency_by_status": records.latency_by_status,
            "native_histograms": records.native or None,
            "exemplars": records.exemplars,
        }
    return replace(settings, **own)


def rows_of(app: Application, settings: Settings, *, shares_settings: bool = False) -> list[Row]:
    """Return a row for each route pattern, for requests that match no route, and for those that the parser refuses.

    An application that has the middleware already keeps its own policies and budget.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for settings that do not fit the application. It is a warning if
    the application *shares_settings* with others.
    """
    check_methods(settings.exclude_methods)
    settings = settings_of(app, settings)
    policies = policies_of(app, settings)
    recorder = recorder_in(app)
    extra = ExtraLabels(settings.extra_labels) if recorder is None else recorder.extra_labels
    more = OF_ANOTHER if shares_settings else ""
    policies.warn = lambda error: logger.warning("%s%s", sentence_of(error, settings.origins), more)
    try:
        policies.check(app, leniently=True)
    except ConfigurationError as error:
        if not shares_settings:
            raise
        policies.warn(error)
    domains = {} if HOST in extra.varying else hosts(app)
    resources = dict.fromkeys(all_resources(app))  # a resource of two domains is there twice
    resources = {each: None for each in resources if all(is_recorded(route.handler) for route in each)}
    rows = [
        _row(resource, policies, settings, domains.get(resource, ""), extra)
        for resource in resources
        if not covers(settings.exclude, resource, policies)
    ]
    rows = [row for row in rows if row.methods]
    unmatched = [(UNMATCHED, hdrs.METH_ANY, host) for host in dict.fromkeys(["", *domains.values()])]
    for label, method, host in (*unmatched, (MALFORMED, UNKNOWN, "")):
        if not any(fnmatchcase(label, pattern) for pattern in settings.exclude):
            is_unmatched = label == UNMATCHED
            own = extra.of_route(None, None) + extra.longest if is_unmatched else extra.without_request(label)
            combinations = extra.combinations if is_unmatched else 1
            cost = _cost((label, *_host(host), *own), settings, methods=(method,), number=combinations)
            rows.append(Row((method,), None, "", {}, label, escaped(label), 1, *cost, host))
    return rows


def _host(host: str) -> tuple[str, ...]:
    return (HOST, host) if host else ()


def _row(resource: AbstractResource, policies: Policies, settings: Settings, host: str, extra: ExtraLabels) -> Row:
    fixed, allowed = policies.of(resource)
    names, kept, labels = parameter_names(resource), policies.kept(resource, settings.path_budget), 1
    is_folded = names - fixed - allowed.keys() != kept  # each of its requests, since there is no budget
    parameters = {}
    for name in sorted(names):
        if name in fixed:
            parameters[name] = "fixed"
        elif is_folded:
            parameters[name] = "folded"
        elif name in allowed:
            parameters[name] = ", ".join([*sorted(allowed[name] - {OTHER}), OTHER])
            labels *= len(allowed[name] | {OTHER})
        else:
            parameters[name] = "kept" if policies.keeps_all else "kept if safe"
    if kept:
        labels = settings.path_budget + 1  # and the template
    if is_folded:
        fixed, allowed = names, {}
    path = template(resource)
    label = re.sub(r"\{(\w+)\}", lambda m: f"<{m[1]}>" if m[1] in names - fixed else m[0], path)
    all_methods = dict.fromkeys(method for route in resource for method in _methods(route))
    methods = tuple(method for method in all_methods if method not in settings.exclude_methods)
    regex = label_regex(resource, fixed, {name: values | {OTHER} for name, values in allowed.items()})
    own = extra.of_route(next((route.handler for route in resource), None), resource) + extra.longest
    labels_of_route = path, *_host(host), *own
    cost = _cost(labels_of_route, settings, route=resource.name, methods=methods, number=labels * extra.combinations)
    return Row(methods, resource.name, resource.canonical, parameters, label, regex, labels, *cost, host)


def _methods(route: AbstractRoute) -> Sequence[str]:
    handler = route.handler
    if route.method == hdrs.METH_ANY and isinstance(handler, type) and issubclass(handler, View):
        return sorted(method for method in hdrs.METH_ALL if hasattr(handler, method.lower()))  # which View asks for
    return (route.method,)


def _cost(
    labels: tuple[str, ...], settings: Settings, *, route: str | None = None, methods: Sequence[str], number: int
) -> tuple[int, int]:
    """Return the series, and the bytes of a scrape, of these methods and a *number* of *labels* as long as these."""
    registry = CollectorRegistry()
    detail = settings.detail or FULL
    records = Records(
        registry,
        prefix=settings.metric_prefix,
        buckets=settings.buckets,
        detail=detail,
        names=settings.names,
        latency_by_status=settings.latency_by_status,
        native_histograms=settings.native_histograms or False,
    )
    records.has_loop_time = settings.loop_metrics
    _record_statuses(records, ("DELETE", *labels), route)
    samples = [line for line in TEXT.render(registry).splitlines(keepends=True) if not line.startswith(b"#")]
    series, size = len(samples), sum(map(len, samples))
    if records.native:
        stores = [store for store in (records.basic, records.full) if store is not None]
        parts = [
            (family.type, len(part.series)) for store in stores for family in store.collect() for part in family.parts
        ]
        native = sum(length for kind, length in parts if records.native == ONLY or kind == "histogram")
        series = native + (series if records.native == BOTH else 0)
        size = -len(PROTOBUF.render(registry))
        _record_statuses(records, ("delete", *labels), route)
        size += len(PROTOBUF.render(registry))
    count = number * sum(len(usual_methods(settings)) if method == hdrs.METH_ANY else 1 for method in methods)
    return count * series, count * size


def _record_statuses(records: Records, labels: tuple[str, ...], route: str | None) -> None:
    """Record a request with each of the statuses."""
    record = records.request(labels, route)
    for status in STATUSES:
        record.begin()
        record.finish(str(status), 0.1)
    record.measure(0.1, 1000, 0)


def usual_methods(settings: Settings) -> list[str]:
    """Return the methods that a route for all of them is counted with."""
    return [method for method in _USUAL_METHODS if method not in settings.exclude_methods]


def render_table(table: Sequence[Row], methods: Sequence[str], width: int | None = None) -> list[str]:
    """Return the lines of a table for people, with the totals last. *methods* are the usual ones.

    A table that is wider than *width* columns becomes a block of lines for each route, in which only a single value can be
    wider. ``None`` is any width.
    """
    host = ("HOST",) if any(row.host for row in table) else ()
    cells: list[tuple[str, ...]] = [
        ("METHODS", "NAME", *host, "PATTERN", "PATH LABEL", "PARAMETERS", "LABELS", "SERIES")
    ]
    for row in table:
        parameters = "; ".join(f"{name}: {policy}" for name, policy in row.parameters.items())
        first = ",".join(row.methods), row.name or "-", *([row.host or "-"] if host else [])
        named = *first, row.pattern or "-", row.label, parameters or "-"
        cells.append((*named, f"{row.labels:,}", f"{row.series:,}"))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    series, size = totals(table)
    last = [f"At worst {series:,} series, {size:,} bytes a scrape."]
    if any(hdrs.METH_ANY in row.methods for row in table):
        last.insert(0, f"* is reckoned as {len(methods)} methods: {', '.join(methods)}.")
    if width is not None:
        last = [line for text in last for line in _wrap(text, width, "")]
        if max(map(len, lines)) > width:
            lines = [line for row in table for line in [*_block(row, width), ""]]
    return [*lines, *last]


def _block(row: Row, width: int) -> list[str]:
    """Return the lines of one route where the table is too wide."""
    lines = _wrap(f"{', '.join(row.methods)} {row.pattern or '-'}{f' ({row.name})' if row.name else ''}", width, "")
    for text in (
        *([f"host: {row.host}"] if row.host else []),
        f"path label: {row.label}",
        *(f"{name}: {policy}" for name, policy in row.parameters.items()),
        f"at worst: {row.labels:,} label{'s' * (row.labels != 1)}, {row.series:,} series",
    ):
        lines += _wrap(text, width, "  ")
    return lines


def _wrap(text: str, width: int, indent: str) -> list[str]:
    """Return the lines of a text. A word that does not fit behind the indent gets a line without it."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            before = f"{indent}{indent if lines else ''}"
            lines.append(before + word if len(before) + len(word) <= width else word)
    return lines


def totals(table: Sequence[Row]) -> tuple[int, int]:
    """Return the series of all rows together, and the bytes of a scrape of them."""
    return sum(row.series for row in table), sum(row.bytes for row in table)
