"""What a worker sends to the supervisor at a scrape, as JSON: every sample that is in no file.

These are the samples of custom collectors (of the process and the garbage collector, too), of ``Info`` and ``Enum``, and
of gauges with ``set_function``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Summary, multiprocess
from prometheus_client.core import Metric as Family
from prometheus_client.samples import Exemplar, Sample

from hr_prometheus.exposition.collectors import answer_of, may_be_slow, needs_loop, report_failure, with_functions
from hr_prometheus.store.store import Store, dump_exemplars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    from hr_prometheus.exposition.collectors import Answer

#: The collectors whose samples are in files.
_IN_FILES = (Counter, Gauge, Histogram, Summary, Store, multiprocess.MultiProcessCollector)


class WorkerDump(NamedTuple):
    """What a worker has sent.

    *target* has the labels of its target info. *functions* are those series of its gauges that have functions; the value
    is ``None`` if the function gave none. *plain_gauges* are the names of the gauges that have series and no functions.
    """

    target: dict[str, str]
    families: list[Family]
    functions: list[Family]
    plain_gauges: frozenset[str]
    #: As :func:`~hr_prometheus.store.store.dump_exemplars` has returned them.
    exemplars: list[Any]


def dump(
    registry: CollectorRegistry = REGISTRY, answers: Mapping[Collector, Answer] | None = None, *, since: int = 0
) -> dict[str, object]:
    """Return the families that are in no file, in a form that JSON can carry.

    Of the exemplars there are those that were kept after the number *since*.
    *answers* are those to :func:`slow_calls` that came in time; without them each collector is called here.
    A collector that raises loses what it has not yet yielded, and nothing else. It is logged once a kind and
    counted in ``hr_prometheus_errors_total{where="collector"}``.
    """
    families: list[dict[str, object]] = []
    functions: list[dict[str, object]] = []
    calls = slow_calls(registry)
    for collector in _collectors(registry):
        if isinstance(collector, _IN_FILES) and collector not in calls:
            continue
        if answers is not None and collector in calls:
            answer = answers.get(collector)
        else:
            answer = answer_of(calls.get(collector, collector.collect))
        try:
            if isinstance(collector, Gauge):
                functions.extend(map(_dump_family, answer.families if answer else _without_values(collector)))
            elif answer:
                families.extend(map(_dump_family, answer.families))
            if answer and answer.error is not None:
                raise answer.error  # noqa: TRY301  # what was yielded before it stays
        except BaseException as error:  # noqa: BLE001  # of the application's
            report_failure(collector, error, registry)
    gauges = [collector for collector in _collectors(registry) if isinstance(collector, Gauge)]
    plain = [next(iter(gauge.describe())).name for gauge in gauges if _is_plain(gauge)]
    target = registry.get_target_info() or {}
    exemplars = dump_exemplars(registry, since)
    return {"target": target, "families": families, "functions": functions, "plain": plain, "exemplars": exemplars}


def dump_without_calls(registry: CollectorRegistry = REGISTRY) -> dict[str, object]:
    """Return a dump that calls no collector and no function: it only names the series of gauges that have functions."""
    gauges = [collector for collector in slow_calls(registry) if isinstance(collector, Gauge)]
    functions = [_dump_family(family) for gauge in gauges for family in _without_values(gauge)]
    return {"target": {}, "families": [], "functions": functions, "plain": [], "exemplars": []}


def slow_calls(registry: CollectorRegistry = REGISTRY) -> dict[Collector, Callable[[], object]]:
    """Return the collectors of :func:`dump` that may be slow, each with the function that collects it."""
    calls: dict[Collector, Callable[[], object]] = {}
    for collector in _collectors(registry):
        if isinstance(collector, Gauge):
            if with_functions(collector):
                calls[collector] = partial(_call_functions, collector, registry)
        elif not isinstance(collector, _IN_FILES) and may_be_slow(collector):
            calls[collector] = collector.collect
    return calls


def load(dumped: object) -> WorkerDump:
    """Inverse of :func:`dump`. Raises an exception of any kind if *dumped* is nothing that :func:`dump` returns."""
    data: Any = dumped
    return WorkerDump(
        {str(name): _text(value) for name, value in data["target"].items()},
        [_load_family(family) for family in data["families"]],
        [_load_family(family) for family in data["functions"]],
        frozenset(data["plain"]),
        data["exemplars"],
    )


def _collectors(registry: CollectorRegistry) -> tuple[Collector, ...]:
    """Return the collectors of a registry, whose own collect() ends with the first that raises."""
    return tuple(registry._collector_to_names)  # noqa: SLF001  # nothing public lists them


def _call_functions(gauge: Gauge, registry: CollectorRegistry) -> list[Family]:
    """Return a family of the samples of a gauge that have functions, with the values that these give."""
    (family,) = gauge.describe()
    for labels, child in _function_children(gauge):
        try:
            for sample in child._child_samples():  # noqa: SLF001  # which set_function replaces
                family.add_sample(family.name, labels, sample.value)
        except Exception as error:
            if needs_loop(error):
                raise
            report_failure(child, error, registry)
            # The supervisor must know that the value in the file is meaningless, too.
            family.add_sample(family.name, labels, None)  # type: ignore[arg-type]
    return [family]


def _without_values(gauge: Gauge) -> list[Family]:
    """Return the same family without values."""
    (family,) = gauge.describe()
    for labels, _ in _function_children(gauge):
        family.add_sample(family.name, labels, None)  # type: ignore[arg-type]
    return [family]


def _function_children(gauge: Gauge) -> Iterator[tuple[dict[str, str], Gauge]]:
    for values, child in with_functions(gauge).items():
        yield dict(zip(gauge._labelnames, values, strict=True)), child  # noqa: SLF001  # nothing public names them


def _is_plain(gauge: Gauge) -> bool:
    """Whether a gauge has series, and none of them a function."""
    has_series = not gauge._labelnames or bool(gauge._metrics)  # noqa: SLF001  # nothing public lists them
    return has_series and not with_functions(gauge)


def _dump_family(family: Family) -> dict[str, object]:
    return {
        "name": family.name,
        "help": _text(family.documentation),
        "type": family.type,
        "unit": family.unit,
        "samples": [_dump_sample(sample) for sample in family.samples if sample.native_histogram is None],
    }


def _dump_sample(sample: Sample) -> list[object]:
    exemplar = sample.exemplar and [
        _texts(sample.exemplar.labels),
        float(sample.exemplar.value),
        _number(sample.exemplar.timestamp),
    ]
    return [sample.name, _texts(sample.labels), _number(sample.value), _number(sample.timestamp), exemplar]


def _load_family(dumped: Any) -> Family:
    family = Family(dumped["name"], dumped["help"], dumped["type"], dumped["unit"])
    for name, labels, value, timestamp, exemplar in dumped["samples"]:
        family.add_sample(name, labels, value, timestamp, exemplar and Exemplar(*exemplar))
    return family


def _texts(labels: Any) -> dict[str, str]:
    return {name: _text(value) for name, value in labels.items()}


def _text(value: object) -> str:
    """Return *value* as text that UTF-8 can encode."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
