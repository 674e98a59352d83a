"""What a worker tells of itself at a scrape: every sample that prometheus_client's files do not carry.

These are custom collectors (those of the process and the garbage collector among them), ``Info``, ``Enum`` and
gauges with ``set_function``. They travel as JSON.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Summary
from prometheus_client.core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Exemplar, Sample

from hr_prometheus.exposition.collectors import answer_of, failed, may_be_slow, needs_loop, with_functions
from hr_prometheus.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    from hr_prometheus.exposition.collectors import Answer

#: What comes to the supervisor by way of files.
_IN_FILES = (Counter, Gauge, Histogram, Summary, Store, MultiProcessCollector)


def dump(
    registry: CollectorRegistry = REGISTRY, answers: Mapping[Collector, Answer] | None = None
) -> dict[str, object]:
    """Return the families that no file carries, as something that JSON can carry.

    *answers* are those that were got of :func:`calls` in time; without them each collector is called here.
    A collector that raises loses what it has not yet yielded, and nothing else; it is logged once a kind and
    counted in ``hr_prometheus_errors_total{where="collector"}``.
    """
    families: list[dict[str, object]] = []
    functions: list[dict[str, object]] = []
    asked = calls(registry)
    for collector in tuple(registry._collector_to_names):  # noqa: SLF001  # collect() ends with the first that raises
        if isinstance(collector, _IN_FILES) and collector not in asked:
            continue
        if answers is not None and collector in asked:
            answer = answers.get(collector)
        else:
            answer = answer_of(asked.get(collector, collector.collect))
        try:
            if isinstance(collector, Gauge):
                functions.extend(map(_dumped, answer.families if answer else _unanswered(collector)))
            elif answer:
                families.extend(map(_dumped, answer.families))
            if answer and answer.error is not None:
                raise answer.error  # noqa: TRY301  # what was yielded before it stays
        except BaseException as error:  # noqa: BLE001  # of the application's
            failed(collector, error, registry)
    gauges = [each for each in tuple(registry._collector_to_names) if isinstance(each, Gauge)]  # noqa: SLF001  # as above
    plain = [next(iter(gauge.describe())).name for gauge in gauges if _is_plain(gauge)]
    target = registry.get_target_info() or {}
    return {"target": target, "families": families, "functions": functions, "plain": plain}


def plain_gauges(dumped: object) -> list[str]:
    """Return the names of the gauges of a worker whose numbers in the files are all true."""
    data: Any = dumped
    return list(data.get("plain", ()))


def without_answers(registry: CollectorRegistry = REGISTRY) -> dict[str, object]:
    """Return what a process dumps that is not asked: which of its gauges have functions, and nothing else."""
    gauges = [each for each in calls(registry) if isinstance(each, Gauge)]
    functions = [_dumped(family) for gauge in gauges for family in _unanswered(gauge)]
    return {"target": {}, "families": [], "functions": functions}


def calls(registry: CollectorRegistry = REGISTRY) -> dict[Collector, Callable[[], object]]:
    """Return what of :func:`dump` may be slow: the collectors, and by what to ask them."""
    found: dict[Collector, Callable[[], object]] = {}
    for collector in tuple(registry._collector_to_names):  # noqa: SLF001  # as above
        if isinstance(collector, Gauge):
            if with_functions(collector):
                found[collector] = partial(_function_family, collector, registry)
        elif not isinstance(collector, _IN_FILES) and may_be_slow(collector):
            found[collector] = collector.collect
    return found


def load(dumped: object) -> tuple[dict[str, str], list[Family], list[Family]]:
    """Return what :func:`dump` was given: the target's labels, the families, and the gauges with functions.

    Raises an exception of any kind if *dumped* is nothing that :func:`dump` returns.
    """
    data: Any = dumped
    return (
        {str(name): _text(value) for name, value in data["target"].items()},
        [_loaded(family) for family in data["families"]],
        [_loaded(family) for family in data["functions"]],
    )


def _function_family(gauge: Gauge, registry: CollectorRegistry) -> list[Family]:
    """Return a family of those samples of a gauge that a function gives."""
    (family,) = gauge.describe()
    for labels, child in _functions(gauge):
        try:
            for sample in child._child_samples():  # noqa: SLF001  # which set_function replaces
                family.add_sample(family.name, labels, sample.value)
        except Exception as error:
            if needs_loop(error):
                raise
            failed(child, error, registry)
            # It has no value, but the supervisor must know that its number in the file is none either.
            family.add_sample(family.name, labels, None)  # type: ignore[arg-type]
    return [family]


def _unanswered(gauge: Gauge) -> list[Family]:
    """Return the same family without values."""
    (family,) = gauge.describe()
    for labels, _ in _functions(gauge):
        family.add_sample(family.name, labels, None)  # type: ignore[arg-type]
    return [family]


def _functions(gauge: Gauge) -> Iterator[tuple[dict[str, str], Gauge]]:
    for values, child in with_functions(gauge).items():
        yield dict(zip(gauge._labelnames, values, strict=True)), child  # noqa: SLF001  # nothing public tells


def _is_plain(gauge: Gauge) -> bool:
    """Whether a gauge has series, none of which a function gives."""
    has_series = not gauge._labelnames or bool(gauge._metrics)  # noqa: SLF001  # nothing public tells
    return has_series and not with_functions(gauge)


def _dumped(family: Family) -> dict[str, object]:
    return {
        "name": family.name,
        "help": _text(family.documentation),
        "type": family.type,
        "unit": family.unit,
        "samples": [_dumped_sample(sample) for sample in family.samples if sample.native_histogram is None],
    }


def _dumped_sample(sample: Sample) -> list[object]:
    exemplar = sample.exemplar and [
        _texts(sample.exemplar.labels),
        float(sample.exemplar.value),
        _number(sample.exemplar.timestamp),
    ]
    return [sample.name, _texts(sample.labels), _number(sample.value), _number(sample.timestamp), exemplar]


def _loaded(dumped: Any) -> Family:
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
