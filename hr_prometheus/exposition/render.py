"""From families to the text of a scrape, piece by piece, so that requests can be served in between.

The bytes are those of prometheus_client, which renders all families but ours. A family of ours is read from its cells. The
text of a series is one format string, made once for the family, filled with its labels and its numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client.core import Metric as Family

from hr_prometheus.exposition.exemplars import exemplar_text
from hr_prometheus.store.bounds import classic_bounds, cumulative_counts
from hr_prometheus.store.families import StoredFamily, go_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from prometheus_client.core import Sample

    from hr_prometheus.store.families import Part

    Generate: TypeAlias = Callable[["Families"], bytes]

#: Samples of a family that is not ours in one piece; about 13 microseconds each.
_SAMPLES = 100
#: Label names that are less come before the bound of a bucket.
_LE = ("le",)
#: Series of a family of ours in one piece; at most 20 lines each, and about 0.2 microseconds a line.
_SERIES = 50


class Families:
    """Some families, as a registry for prometheus_client's functions."""

    def __init__(self, *families: Family) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        """Return the families."""
        return self._families


def pieces(
    families: Iterable[Family], generate: Generate, *, is_openmetrics: bool, is_escaped: bool, with_created: bool
) -> Iterator[bytes]:
    """Yield the text of *families*, as *generate* writes it, in pieces of a millisecond or less each.

    *is_escaped*: *generate* rewrites names, so it renders families of ours as well. *with_created*: families of ours have
    ``_created`` samples.
    """
    for family in families:
        if isinstance(family, StoredFamily) and not is_escaped and ":" not in family.name:
            yield generate(Families(Family(family.name, family.documentation, family.type)))
            for part in family.parts:
                template = _template(family, classic_bounds(part.bounds), with_created=with_created)
                for start in range(0, len(part.series), _SERIES):
                    lines = _lines(
                        family, part, template, start, with_created=with_created, with_exemplars=is_openmetrics
                    )
                    yield lines.encode()
        elif len(family.samples) <= _SAMPLES:
            yield generate(Families(family))
        else:
            yield from _long(family, generate, is_openmetrics=is_openmetrics)


def _template(family: StoredFamily, bounds: Sequence[float], *, with_created: bool) -> str:
    """Return the lines of one series with these *bounds*, each with a place for its labels and one for its number.

    The place in the line of a bucket, inside its braces, is for labels after the bound. Any other has the braces as well.
    """
    texts = iter([go_text(bound) for bound in (*bounds, float("inf"))])
    lines = []
    for name in family.sample_names(bounds, with_created=with_created):
        is_bucket = family.type == "histogram" and name.endswith("_bucket")
        line = f'{name}{{le="{next(texts)}"%s}} %s\n' if is_bucket else f"{name}%s %s\n"
        if family.selects(name):
            lines.append(line)
    return "".join(lines)


def _lines(
    family: StoredFamily, part: Part, template: str, start: int, *, with_created: bool, with_exemplars: bool
) -> str:
    """Return the lines of the next series of ours, from number *start* on."""
    own = family.export.labels
    own_names = sorted((name, index) for index, name in enumerate(own))
    own_before = bisect_left(own_names, _LE)
    cells = len(part.bounds) + 1 if family.type == "histogram" else 0
    samples = family.sample_names(classic_bounds(part.bounds), with_created=with_created)
    selected = [index for index, name in enumerate(samples) if family.selects(name)]
    buckets = template.count("{")
    lines = []
    for values, (page, first) in part.series[start : start + _SERIES]:
        text, label_names, before = template, own_names, own_before
        if len(values) > len(own):
            extra = [(name, len(own) + 2 * index + 1) for index, name in enumerate(values[len(own) :: 2])]
            label_names = sorted([*own_names, *extra])  # as prometheus_client sorts them
            before = bisect_left(label_names, _LE)
        labels = [f'{name}="{_escaped(values[index])}"' for name, index in label_names]
        last = first + cells
        if cells:
            total, *counts = list(page[first : last + 1])  # at one moment: another thread may be writing
            numbers = [*map(_counts.__getitem__, cumulative_counts(part.bounds, counts))]
            if family.may_be_empty and numbers[-1] == "0.0":
                continue
            numbers += (numbers[-1], _number(total))
        else:
            numbers = [_number(page[first])]
        if with_created and family.type != "gauge":
            numbers.append(go_text(page[last + 1]))
        if with_exemplars and family.exemplars:
            for index, exemplar in family.exemplars_of(values, part.bounds).items():
                numbers[index] += exemplar_text(exemplar)
        if len(selected) < len(numbers):
            numbers = [numbers[index] for index in selected]
        joined = ",".join(labels)
        braces = f"{{{joined}}}" if joined else ""
        after = f",{joined}" if joined else ""
        if buckets and before:
            first_labels = "".join([f"{each}," for each in labels[:before]])
            text = template.replace("{", "{" + first_labels.replace("%", "%%"))
            after = "".join([f",{each}" for each in labels[before:]])
        places = [after] * (2 * buckets) + [braces] * (2 * (len(numbers) - buckets))
        places[1::2] = numbers
        lines.append(text % tuple(places))
    return "".join(lines)


def _number(value: float) -> str:
    # Up to a million Go writes a number as Python does.
    return repr(value) if 0.0 <= value < 1e6 else go_text(value)


class _Counts(dict[float, str]):
    """The texts of counts. The buckets of histograms have many that are the same."""

    def __missing__(self, count: float) -> str:
        if len(self) >= _MOST_COUNTS:
            self.clear()
        text = self[count] = go_text(count)
        return text


_MOST_COUNTS = 4096
_counts = _Counts()


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _long(family: Family, generate: Generate, *, is_openmetrics: bool) -> Iterator[bytes]:
    """Yield the text of a long family that is not ours. Each piece is rendered with a header, which is cut off again."""
    groups: dict[str, list[Sample]] = {"": []}
    for sample in family.samples:
        # In the text format these come last, with a header for each suffix.
        suffix = sample.name.removeprefix(family.name)
        is_late = suffix in ("_created", "_gsum", "_gcount") and not is_openmetrics
        groups.setdefault(suffix if is_late else "", []).append(sample)
    part = Family(family.name, family.documentation, family.type, family.unit)
    header = generate(Families(part))
    yield header
    for suffix, samples in sorted(groups.items()):
        for start in range(0, len(samples), _SAMPLES):
            part.samples = samples[start : start + _SAMPLES]
            text = generate(Families(part)).removeprefix(header)
            yield text.split(b"\n", 2)[2] if suffix and start else text
