"""The counters of each route, read from the text of a scrape."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.metrics import (
    HOST,
    REQUEST_COUNT,
    REQUEST_LATENCY,
    REQUEST_LOOP_TIME,
    REQUEST_SIZE,
    REQUESTS_IN_PROGRESS,
    RESPONSE_SIZE,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The samples that are read, by their names without a metric prefix.
REQUESTS = REQUEST_COUNT.exported_name
BUCKETS = f"{REQUEST_LATENCY.name}_bucket"
IN_PROGRESS = REQUESTS_IN_PROGRESS.exported_name
LOOP_SECONDS = REQUEST_LOOP_TIME.exported_name
BYTES_IN = f"{REQUEST_SIZE.name}_sum"
BYTES_OUT = f"{RESPONSE_SIZE.name}_sum"
SAMPLE_NAMES = (REQUESTS, BUCKETS, IN_PROGRESS, LOOP_SECONDS, BYTES_IN, BYTES_OUT)

# https://prometheus.io/docs/instrumenting/exposition_formats/: the text format, and what OpenMetrics has in common with it.
_LABEL_VALUE = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_SAMPLE = r"^{}\{{((?:[^\"}}\n]*" + _LABEL_VALUE + r")*[^\"}}\n]*)\}} ([^ \n]+)"
_ANY_SAMPLE = re.compile(r"^[a-zA-Z_:][\w:]*(?:\{.*\})? [-+.\dNI]\S*(?: [-.\d]+)?(?: # .*)?$", re.MULTILINE)
_LABEL = re.compile(rf"(\w+)=({_LABEL_VALUE})")
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


class Route(NamedTuple):
    """The labels that the series of one route share. *host* is empty but for an application of a domain."""

    method: str
    path: str
    host: str = ""


@dataclass
class RouteCounters:
    """The samples of one route. A counter's key is its sample's name and, if there is one, the label *status* or *le*."""

    counters: dict[tuple[str, str], float] = field(default_factory=dict)
    in_progress: float = 0.0


def is_exposition(text: str) -> bool:
    """Whether *text* has samples of any metric, or is empty as before the first sample."""
    return not text.strip() or _ANY_SAMPLE.search(text) is not None


def find_prefix(text: str) -> str | None:
    """Return the metric prefix of the first histogram of requests' latencies, or None if there is none."""
    pattern = re.compile(_SAMPLE.format(rf"([a-zA-Z_:][\w:]*|){BUCKETS}"), re.MULTILINE)
    for sample in pattern.finditer(text):
        if {"method", "path"} <= _read_labels(sample[2]).keys():
            return sample[1]
    return None


def read_routes(text: str, prefix: str) -> dict[Route, RouteCounters]:
    """Return the counters of each route. Series that differ in another label, such as an instance, are added up.

    A value or a bound that is no number raises :exc:`ValueError`.
    """
    names = "|".join(map(re.escape, SAMPLE_NAMES))
    pattern = re.compile(_SAMPLE.format(rf"{re.escape(prefix)}({names})"), re.MULTILINE)
    routes: dict[Route, RouteCounters] = {}
    for name, labels, number in pattern.findall(text):
        route, key = _route_and_key(labels)
        if route is None:
            continue
        if route not in routes:
            routes[route] = RouteCounters()
        if name == IN_PROGRESS:
            routes[route].in_progress += float(number)
        else:
            counters = routes[route].counters
            counters[name, key] = counters.get((name, key), 0.0) + float(number)
    return routes


@lru_cache(maxsize=100_000)  # a scrape repeats the labels of the one before
def _route_and_key(text: str) -> tuple[Route | None, str]:
    labels = _read_labels(text)
    if "method" not in labels or "path" not in labels:
        return None, ""
    if "le" in labels:
        float(labels["le"])  # raises ValueError
    route = Route(labels["method"], labels["path"], labels.get(HOST, ""))
    return route, labels.get("status") or labels.get("le", "")


def _read_labels(text: str) -> Mapping[str, str]:
    return {
        name: re.sub(r"\\[\\n\"]", lambda escape: _ESCAPES[escape[0]], value[1:-1])
        for name, value in _LABEL.findall(text)
    }
