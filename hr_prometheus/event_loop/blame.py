"""On whom the time is blamed for which an event loop was blocked."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.event_loop.culprit import BACKGROUND, BUSY, GARBAGE, STOPPED, Culprit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    from hr_prometheus.event_loop.usage import Usage

    #: Beginnings and ends.
    Periods: TypeAlias = Iterable[tuple[float, float]]

_STOPPED = Culprit.reason(STOPPED, "the system: the process was stopped, or had no processor to run on")
_GARBAGE = Culprit.reason(GARBAGE, "garbage collection")
_LOOP = Culprit.reason(BACKGROUND, "the event loop itself, or a callback that is written in C")
_BUSY = Culprit.reason(BUSY, "many steps, none of which was seen to hold it for long")


class Sample(NamedTuple):
    """What was seen of a blocked event loop at one moment.

    Samples with the same *step* are of one call of the loop's. Without a *culprit* it ran no Python code but its own. One
    that *is_sure* is of what has run since the one before.
    """

    usage: Usage
    step: int
    culprit: Culprit | None
    is_sure: bool = False


@dataclass(eq=False, slots=True)
class Beat:
    """One beat of an event loop's heart: the *usage* then, when the next one is *due*, and the samples if that is late."""

    usage: Usage
    due: float
    samples: list[Sample] = field(default_factory=list)


class Block(NamedTuple):
    """One culprit has held the event loop for so many *seconds*."""

    seconds: float
    culprit: Culprit


def blame(beat: Beat, end: Usage, *, pauses: Periods, stops: Periods, least: float) -> list[Block]:
    """Return the blocks between a beat and the next one, which came at *end*; none if it came in time.

    *pauses* are those of garbage collection, and in *stops* the process did not run. A culprit has the rest of the time
    between two samples if it ran at both, and half of it if it ran at one. A step that was seen only once, beside others, may
    have been short: it is not blamed. Neither is a culprit with less than *least* seconds, unless it has the most.
    """
    samples = [each for each in beat.samples if each.usage.at < end.at]
    begin = _begin(beat, end, samples, pauses)
    if end.at - begin < least:
        return []
    seconds: dict[tuple[str, ...], float] = defaultdict(float)
    holders = _holders(samples)
    culprits = {each.labels: each for each in (_STOPPED, _GARBAGE, _BUSY, *reversed(holders))}
    if samples and samples[0].usage.at > (since := holders[0].since) > beat.due:  # it has not held it before
        seconds[_BUSY.labels] += since - begin
        begin = since
    usages = [beat.usage._replace(at=begin), *(each.usage for each in samples), end]
    for number, (earlier, later) in enumerate(pairwise(usages)):
        left = later.at - earlier.at
        stopped = _overlap(stops, earlier.at, later.at)
        lost = min(left, max(stopped, later.starved - earlier.starved))
        collected = min(left - lost, _overlap(pauses, earlier.at, later.at))
        seconds[_STOPPED.labels] += lost
        seconds[_GARBAGE.labels] += collected
        for holder in (around := holders[max(0, number - 1) : number + 1] or [_BUSY]):
            seconds[holder.labels] += (left - lost - collected) / len(around)
    longest = max(seconds.values())
    return [
        Block(number, culprits[labels]) for labels, number in seconds.items() if number >= least or number == longest
    ]


def _begin(beat: Beat, end: Usage, samples: Sequence[Sample], pauses: Periods) -> float:
    """Return when the block began: between the beat and the moment in which the next one was due.

    A request that began in this time says when, and so does a garbage collection. Otherwise it is the middle, or later if
    the beat was late by less than that.
    """
    begins = [each.culprit.since for each in samples[:1] if each.culprit is not None]
    begins += [pause_begin for pause_begin, pause_end in pauses if pause_end >= beat.due]
    for begin in begins:
        if beat.usage.at < begin <= beat.due:
            return begin
    return beat.due - min((beat.due - beat.usage.at) / 2, end.at - beat.due)


def _holders(samples: Sequence[Sample]) -> list[Culprit]:
    """Return who has held the loop at each sample."""
    runs = [list(run) for _, run in groupby(samples, lambda each: (each.step, each.culprit and each.culprit.labels))]
    holders: list[Culprit] = []
    for run in runs:
        culprit = run[0].culprit or _LOOP
        is_sure = len(run) > 1 or len(runs) == 1 or run[0].is_sure
        holders += [culprit if is_sure else _BUSY] * len(run)
    return holders


def _overlap(periods: Periods, begin: float, end: float) -> float:
    return sum(max(0.0, min(end, last) - max(begin, first)) for first, last in periods)
