"""The counters of each route, read from the text of a scrape."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.metrics import (
    HOST,
    REQUEST_COUNT,
    REQUEST_LATENCY,
    REQUEST_LOOP_TIME,
    REQUEST_SIZE,
    REQUESTS_IN_PROGRESS,
    RESPONSE_SIZE,
    STATUS,
)
from hr_prometheus.names import NAME_SETS, Naming, exports_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The kinds of samples that are read: their names in the set that is the default, without a metric prefix.
REQUESTS = REQUEST_COUNT.exported_name
BUCKETS = f"{REQUEST_LATENCY.name}_bucket"
IN_PROGRESS = REQUESTS_IN_PROGRESS.exported_name
LOOP_SECONDS = REQUEST_LOOP_TIME.exported_name
BYTES_IN = f"{REQUEST_SIZE.name}_sum"
BYTES_OUT = f"{RESPONSE_SIZE.name}_sum"
#: Of each kind its metric, the suffix of its samples, and the label by which one route has several counters, or "".
_KINDS = {
    REQUESTS: (REQUEST_COUNT, "_total", STATUS),
    BUCKETS: (REQUEST_LATENCY, "_bucket", "le"),
    IN_PROGRESS: (REQUESTS_IN_PROGRESS, "", ""),
    LOOP_SECONDS: (REQUEST_LOOP_TIME, "_total", ""),
    BYTES_IN: (REQUEST_SIZE, "_sum", ""),
    BYTES_OUT: (RESPONSE_SIZE, "_sum", ""),
}
#: The label of the bucket that every series of a histogram has.
INFINITY = "+Inf"

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
    """The samples of one route. A counter's key is its kind and, if there is one, the label of its status or bound."""

    counters: dict[tuple[str, str], float] = field(default_factory=dict)
    in_progress: float = 0.0


class _Sample(NamedTuple):
    """The kind of the samples of one name, and the names of their labels; *key* is as in the table of kinds."""

    kind: str
    method: str
    path: str
    key: str


@cache
def samples_of(naming: Naming) -> Mapping[str, _Sample]:
    """Return what to read of a scrape, by the names of its samples. *naming* has one name set."""
    labels = NAME_SETS[naming.sets[0]].labels
    samples = {}
    for kind, (metric, suffix, key) in _KINDS.items():
        named = [(export, suffix) for export in exports_of(metric, naming)]
        # Where requests have no counter, they are the counts of their latencies.
        ((export, ending),) = named or [(export, "_count") for export in exports_of(REQUEST_LATENCY, naming)]
        method, path, *_ = export.labels
        samples[export.name + ending] = _Sample(kind, method, path, labels.get(key, key))
    return samples


def is_exposition(text: str) -> bool:
    """Whether *text* has samples of any metric, or is empty as before the first sample."""
    return not text.strip() or _ANY_SAMPLE.search(text) is not None


def find_naming(text: str) -> Naming | None:
    """Return how requests are named in a scrape: the first name set that has latencies, and its metric prefix.

    Latencies that have our help text come first: an application may have some of its own with the same name. None if there
    are none.
    """
    namings = list(_namings(text))
    ours = (naming for naming, name in namings if f"# HELP {name} {REQUEST_LATENCY.help}\n" in text)
    return next(ours, namings[0][0] if namings else None)


def _namings(text: str) -> Iterator[tuple[Naming, str]]:
    """Yield the namings that latencies in a scrape may have, with the name of their family."""
    for names in NAME_SETS:
        (export,) = exports_of(REQUEST_LATENCY, Naming(sets=(names,)))
        pattern = re.compile(_SAMPLE.format(rf"([a-zA-Z_:][\w:]*|){export.name}_bucket"), re.MULTILINE)
        prefixes = {
            sample[1]: None for sample in pattern.finditer(text) if set(export.labels) <= _read_labels(sample[2]).keys()
        }
        for prefix in prefixes:
            yield Naming(prefix, (names,)), prefix + export.name


def read_routes(text: str, naming: Naming) -> dict[Route, RouteCounters]:
    """Return the counters of each route. Series that differ in another label, such as an instance, are added up.

    A route has the buckets that all of its series have. A value or a bound that is no number raises :exc:`ValueError`.
    """
    samples = samples_of(naming)
    pattern = re.compile(_SAMPLE.format(f"({'|'.join(map(re.escape, samples))})"), re.MULTILINE)
    routes: dict[Route, RouteCounters] = {}
    bounds: defaultdict[Route, list[str]] = defaultdict(list)  # of all series of a route
    for name, labels, number in pattern.findall(text):
        sample = samples[name]
        route, key = _route_and_key(labels, sample)
        if route is None:
            continue
        if route not in routes:
            routes[route] = RouteCounters()
        if sample.kind == IN_PROGRESS:
            routes[route].in_progress += float(number)
            continue
        if sample.kind == BUCKETS:
            bounds[route].append(key)
        counters = routes[route].counters
        counters[sample.kind, key] = counters.get((sample.kind, key), 0.0) + float(number)
    for route, keys in bounds.items():
        series = Counter(keys)
        for bound in series:
            if series[bound] < series[INFINITY]:
                del routes[route].counters[BUCKETS, bound]
    return routes


@lru_cache(maxsize=100_000)  # a scrape repeats the labels of the one before
def _route_and_key(text: str, sample: _Sample) -> tuple[Route | None, str]:
    labels = _read_labels(text)
    if sample.method not in labels or sample.path not in labels:
        return None, ""
    key = labels.get(sample.key, "")
    if sample.kind == BUCKETS:
        float(key)  # raises ValueError
    return Route(labels[sample.method], labels[sample.path], labels.get(HOST, "")), key


def _read_labels(text: str) -> Mapping[str, str]:
    return {
        name: re.sub(r"\\[\\n\"]", lambda escape: _ESCAPES[escape[0]], value[1:-1])
        for name, value in _LABEL.findall(text)
    }
