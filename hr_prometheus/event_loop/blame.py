"""On whom the time is blamed for which an event loop was blocked."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.event_loop.culprit import BACKGROUND, BUSY, GARBAGE, STOPPED, Culprit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TypeAlias

    from hr_prometheus.event_loop.usage import Usage

    #: Beginnings and ends.
    Periods: TypeAlias = Iterable[tuple[float, float]]

_STOPPED = Culprit.reason(STOPPED, "the system: the process was stopped, or had no processor to run on")
_GARBAGE = Culprit.reason(GARBAGE, "garbage collection")
_LOOP = Culprit.reason(BACKGROUND, "the event loop itself, or a callback that is written in C")
_BUSY = Culprit.reason(BUSY, "several short steps in a row")
#: In the place of a step's number.
_OF_STOPPED, _OF_GARBAGE, _OF_BUSY = -1, -2, -3
_REASONS = {_OF_STOPPED: _STOPPED, _OF_GARBAGE: _GARBAGE, _OF_BUSY: _BUSY}


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

    *pauses* are those of garbage collection, and in *stops* the process did not run. A step has the time between its samples,
    and half of that to its neighbours'. One that has less than *least* seconds, or was seen only once beside others, is not
    blamed: it is one of many short ones. So is all of a block in which nothing has *least* seconds.
    """
    samples = [each for each in beat.samples if each.usage.at < end.at]
    begin, is_exact = _begin(beat, end, samples, pauses)
    # When a step began is mostly a guess. What may be a short one is no block.
    if end.at - (begin if is_exact else beat.due) < least:
        return []
    holders = _holders(samples)
    seconds: dict[int, float] = defaultdict(float)  # by the step, or a reason
    if samples and samples[0].usage.at > (since := holders[0][1].since) > beat.due:  # it has not held it before
        seconds[_OF_BUSY] += since - begin
        begin = since
    guessed = 0.0  # seconds of the first step before it was seen
    usages = [beat.usage._replace(at=begin), *(each.usage for each in samples), end]
    for number, (earlier, later) in enumerate(pairwise(usages)):
        left = later.at - earlier.at
        stopped = _overlap(stops, earlier.at, later.at)
        lost = min(left, max(stopped, later.starved - earlier.starved))
        collected = min(left - lost, _overlap(pauses, earlier.at, later.at))
        seconds[_OF_STOPPED] += lost
        seconds[_OF_GARBAGE] += collected
        for step, _ in (around := holders[max(0, number - 1) : number + 1] or [(_OF_BUSY, _BUSY)]):
            seconds[step] += (left - lost - collected) / len(around)
        if not number and len(set(holders)) > 1 and not samples[0].is_sure:
            guessed = left - lost - collected
    total = sum(seconds.values())
    for step in [step for step, each in seconds.items() if step >= 0 and each - guessed * (step == 0) < least]:
        seconds[_OF_BUSY] += seconds.pop(step)
    return _blocks(seconds, dict(reversed(holders)), least) or [Block(total, _BUSY)]


def _blocks(seconds: Mapping[int, float], holders: Mapping[int, Culprit], least: float) -> list[Block]:
    """Return a block for each culprit that has *least* seconds. Long steps of one route add up."""
    culprits = {**holders, **_REASONS}
    blocks: dict[tuple[str, ...], Block] = {}
    for step, each in seconds.items():
        if each >= least:
            culprit = culprits[step]
            earlier = blocks.get(culprit.labels, Block(0.0, culprit))
            blocks[culprit.labels] = earlier._replace(seconds=earlier.seconds + each)
    return list(blocks.values())


def _begin(beat: Beat, end: Usage, samples: Sequence[Sample], pauses: Periods) -> tuple[float, bool]:
    """Return when the block began, between the beat and the moment in which the next one was due, and whether that is exact.

    It is for a garbage collection. A request that began in this time has not held the loop before. Otherwise it is the
    middle, or later if the beat was late by less than that.
    """
    for pause_begin, pause_end in pauses:
        if pause_end >= beat.due and beat.usage.at < pause_begin <= beat.due:
            return pause_begin, True
    since = samples[0].culprit.since if samples and samples[0].culprit is not None else 0.0
    if beat.usage.at < since <= beat.due:
        return since, False
    return beat.due - min((beat.due - beat.usage.at) / 2, end.at - beat.due), False


def _holders(samples: Sequence[Sample]) -> list[tuple[int, Culprit]]:
    """Return who has held the loop at each sample, and in which step."""
    runs = [list(run) for _, run in groupby(samples, lambda each: (each.step, each.culprit and each.culprit.labels))]
    holders: list[tuple[int, Culprit]] = []
    for number, run in enumerate(runs):
        is_sure = len(run) > 1 or len(runs) == 1 or run[0].is_sure
        holders += [(number, run[0].culprit or _LOOP) if is_sure else (_OF_BUSY, _BUSY)] * len(run)
    return holders


def _overlap(periods: Periods, begin: float, end: float) -> float:
    return sum(max(0.0, min(end, last) - max(begin, first)) for first, last in periods)
