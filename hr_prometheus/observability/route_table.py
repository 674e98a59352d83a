"""The route table of an application as the metrics will see it, before there has been any request."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs
from aiohttp.web import View
from prometheus_client import CollectorRegistry

from hr_prometheus.errors import HrPrometheusError, TargetError
from hr_prometheus.exposition.formats import TEXT
from hr_prometheus.labels.labels import MALFORMED, UNKNOWN, UNMATCHED
from hr_prometheus.labels.policies import OTHER, Policies
from hr_prometheus.labels.resources import (
    all_resources,
    escaped,
    hosts,
    label_regex,
    parameter_names,
    template,
)
from hr_prometheus.metrics import BASIC, FULL
from hr_prometheus.request.records import Records
from hr_prometheus.server import interrupts
from hr_prometheus.server.notices import policies_of, recorder_in
from hr_prometheus.server.runner import Runner
from hr_prometheus.server.script import run_script
from hr_prometheus.server.target import application_error, load_target, make_application, parse_target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from aiohttp.web import AbstractResource, AbstractRoute, Application, AppRunner

    from hr_prometheus.settings import Settings

#: With how many different statuses a label is reckoned to be answered.
STATUSES = (200, 302, 400, 404, 500)
#: With which methods a route for all of them is reckoned to be asked for.
USUAL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Row:
    """One route pattern: how its requests are labelled, and what they can come to at worst.

    In ``label`` a parameter whose values are kept is shown as ``<name>``; ``regex`` is a regular expression, for a
    Prometheus matcher, that all path labels of the route match. ``methods`` of a class-based view are those that its class
    defines. ``series`` and ``bytes``, of the text format, are those of all methods (of ``*``: of the seven usual ones) and
    path labels, each answered with five statuses. ``host`` is the domain of the application that the route belongs to.
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


def load_application(settings: Settings, *, start: bool = False) -> Application:
    """Return the target's application, without running its start-up, or after its start-up and clean-up.

    Raises the exceptions of :mod:`hr_prometheus.errors` that :func:`hr_prometheus.server.run.run` raises for a target.
    """
    target = parse_target(settings.target)
    found: list[Application] = []
    failed: list[HrPrometheusError] = []

    def run_app(app: Application | Awaitable[object], **arguments: Any) -> None:
        try:
            made = _made(settings.target, app, start=start)
            loop = arguments.get("loop")
            found.append(asyncio.run(made) if loop is None else loop.run_until_complete(made))
        except HrPrometheusError as error:
            failed.append(error)
        raise _FoundError

    async def set_up(runner: AppRunner, _original: object) -> None:
        try:
            found.append(await _made(settings.target, runner.app, start=start))
        except HrPrometheusError as error:
            failed.append(error)
        raise _FoundError

    try:
        with interrupts.Raised():
            if target.attribute is None:
                run_script(target, settings.arguments, settings.app_dir, run_app, set_up)
            else:
                value = load_target(target, settings.arguments, settings.app_dir)
                found.append(asyncio.run(_made(settings.target, value, start=start)))
    except SystemExit:
        pass  # with what was found or has failed before
    if failed:
        raise failed[0]
    if not found:
        raise TargetError(f'"{settings.target}" has ended itself before it gave an application, so it has no routes.')
    return found[0]


class _FoundError(SystemExit):
    """Ends a script where it would serve its application, even in a task that nothing waits for."""


async def _made(target: str, value: object, *, start: bool) -> Application:
    app = await make_application(target, value)
    if start:
        runner = Runner(app)
        try:
            await runner.setup()
            await runner.cleanup()
        except Exception as error:
            raise application_error(f'the application "{target}" failed while it started up', error) from error
    return app


def settings_of(app: Application, settings: Settings) -> Settings:
    """Return the settings by which an application is measured: its own, if it carries the middleware already."""
    recorder = recorder_in(app)
    if recorder is None:
        return settings
    own: dict[str, Any] = {"path_budget": recorder.labels.path_budget, "detail": FULL if recorder.is_full else BASIC}
    if recorder.records is not None:
        store = recorder.records.basic
        own |= {"metric_prefix": store.prefix, "buckets": store.latency_buckets}
    return replace(settings, **own)


def rows(app: Application, settings: Settings) -> list[Row]:
    """Return a row for each route pattern of the application, and for what no route matches or the parser refuses.

    An application which carries the middleware already goes on with its policies and its budget.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for settings that do not fit the application.
    """
    said, settings = settings.of_command, settings_of(app, settings)
    policies = policies_of(app, settings)
    policies.said = said
    policies.check(app, leniently=True)
    of_domains = hosts(app)
    resources = dict.fromkeys(all_resources(app))  # one that two domains have is there twice
    made = [_row(resource, policies, settings, of_domains.get(resource, "")) for resource in resources]
    any_host = [(UNMATCHED, hdrs.METH_ANY, host) for host in dict.fromkeys(["", *of_domains.values()])]
    for label, method, host in (*any_host, (MALFORMED, UNKNOWN, "")):
        series, size = _cost(label, settings, host)
        count = _count((method,))
        made.append(Row((method,), None, "", {}, label, escaped(label), 1, count * series, count * size, host))
    return [row for row in made if not any(fnmatchcase(row.label, pattern) for pattern in settings.exclude)]


def _row(resource: AbstractResource, policies: Policies, settings: Settings, host: str) -> Row:
    fixed, allowed = policies.of(resource)
    parameters, labels, is_kept = {}, 1, False
    for name in sorted(parameter_names(resource)):
        if name in fixed:
            parameters[name] = "fixed"
        elif name in allowed:
            parameters[name] = ", ".join([*sorted(allowed[name] - {OTHER}), OTHER])
            labels *= len(allowed[name] | {OTHER})
        else:
            parameters[name] = "kept" if policies.keeps_all else "kept if safe"
            is_kept = True
    if is_kept:
        labels = settings.path_budget + 1  # and the template
    shown = template(resource)
    label = re.sub(r"\{(\w+)\}", lambda m: m[0] if parameters.get(m[1], "fixed") == "fixed" else f"<{m[1]}>", shown)
    methods = tuple(dict.fromkeys(method for route in resource for method in _methods(route)))
    count = labels * _count(methods)
    series, size = _cost(shown, settings, host)
    regex = label_regex(resource, fixed, {name: values | {OTHER} for name, values in allowed.items()})
    total, total_size = count * series, count * size
    return Row(methods, resource.name, resource.canonical, parameters, label, regex, labels, total, total_size, host)


def _methods(route: AbstractRoute) -> Sequence[str]:
    handler = route.handler
    if route.method == hdrs.METH_ANY and isinstance(handler, type) and issubclass(handler, View):
        return sorted(method for method in hdrs.METH_ALL if hasattr(handler, method.lower()))  # which View asks for
    return (route.method,)


def _count(methods: Sequence[str]) -> int:
    return sum(len(USUAL_METHODS) if method == hdrs.METH_ANY else 1 for method in methods)


def _cost(label: str, settings: Settings, host: str = "") -> tuple[int, int]:
    """Return the number of series and of bytes in a scrape of one method and path label."""
    registry = CollectorRegistry()
    detail = settings.detail or FULL
    records = Records(registry, prefix=settings.metric_prefix, buckets=settings.buckets, detail=detail)
    record = records.request(("DELETE", label, host) if host else ("DELETE", label))
    for status in STATUSES:
        record.enter()
        record.finish(str(status), 0.1)
    record.measure(0.1, 1000, 0)
    samples = [line for line in TEXT.render(registry).splitlines(keepends=True) if not line.startswith(b"#")]
    return len(samples), sum(map(len, samples))


def text_table(table: Sequence[Row], width: int | None = None) -> list[str]:
    """Return the lines of a table for people, with the totals last.

    Where the table is wider than *width* columns, there is a block of lines for each route. Then only a single value can
    make a line longer than that. ``None`` is any width.
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
    if any(hdrs.METH_ANY in row.methods for row in table):
        lines.append(f"* is reckoned as {len(USUAL_METHODS)} methods: {', '.join(USUAL_METHODS)}.")
    series, size = totals(table)
    total = f"At worst {series:,} series, {size:,} bytes a scrape."
    if width is None or max(map(len, lines)) <= width:
        return [*lines, total]
    blocks = [line for row in table for line in [*_block(row, width), ""]]
    return [*blocks, *_wrapped(total, width, "")]


def _block(row: Row, width: int) -> list[str]:
    """Return the lines of one route where the table is too wide."""
    lines = _wrapped(f"{', '.join(row.methods)} {row.pattern or '-'}{f' ({row.name})' if row.name else ''}", width, "")
    for text in (
        *([f"host: {row.host}"] if row.host else []),
        f"path label: {row.label}",
        *(f"{name}: {policy}" for name, policy in row.parameters.items()),
        f"at worst: {row.labels:,} label{'s' * (row.labels != 1)}, {row.series:,} series",
    ):
        lines += _wrapped(text, width, "  ")
    return lines


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    """Return the lines of a text. A word that does not fit behind the indent has a line without it."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            before = f"{indent}{indent if lines else ''}"
            lines.append(before + word if len(before) + len(word) <= width else word)
    return lines


def totals(table: Sequence[Row]) -> tuple[int, int]:
    """Return the number of series and of bytes a scrape that a table's rows come to together."""
    return sum(row.series for row in table), sum(row.bytes for row in table)
