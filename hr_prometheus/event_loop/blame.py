"""Whom to blame for the time for which an event loop was blocked.

The time between two beats of the loop's heart is cut into pieces, each between two looks at its stack. What of a piece is not
in the lines above goes to the first line that fits:

| seconds of a piece | go to |
|---|---|
| in which the process was stopped, or the loop's thread had no processor | `stopped` |
| in which garbage was collected | `gc` |
| the rest, if another thread kept the interpreter lock | `thread` |
| the rest, if the loop's thread kept it, and was in a call right afterwards | the step with that call |
| the rest, if one or the other kept it | the step before and after it, if that is the same; else what is sure to a long step, and `busy` |
| the rest | the steps before and after it, half and half |

A step is one call of the loop's. One that was seen once, and has not kept the lock, may be any of many short ones. So may one that
has too few seconds. The seconds of either go to `busy`.

Where loop time is counted, a long step of a request notes when it began and ended. The loop ran nothing else meanwhile, whether
that was seen or not. The seconds are sure in which it has computed, and those in which the lock was kept and it cannot have waited
for it. If they are enough for a block, it counts as if it was seen twice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.event_loop.culprit import BACKGROUND, BUSY, GARBAGE, STOPPED, THREAD, Culprit
from hr_prometheus.event_loop.lock import Keeper, lock_keeper, longest_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from hr_prometheus.event_loop.long_steps import LongStep
    from hr_prometheus.event_loop.usage import Usage

    #: Beginnings and ends.
    Periods: TypeAlias = Iterable[tuple[float, float]]

_LOOP = Culprit.reason(BACKGROUND, "the event loop itself, or a callback that is written in C")


class Sample(NamedTuple):
    """What was seen of a blocked event loop at one moment.

    Samples with the same *step* are of one call of the loop's. Without a *culprit* it ran no Python code but its own. If it
    *may_keep_lock*, it is the step that has kept the interpreter lock until then, unless another thread has. *long_step* is what
    the step has noted of itself, if it has.
    """

    usage: Usage
    step: int
    culprit: Culprit | None
    may_keep_lock: bool = False
    long_step: LongStep | None = None

    @property
    def since(self) -> float:
        """When the request that was seen began; 0 if it was none."""
        return 0.0 if self.culprit is None else self.culprit.since

    @property
    def is_end(self) -> bool:
        """Whether it is the end that a long step has noted, and nothing that the watchdog has seen."""
        return self.long_step is not None and self.usage is self.long_step.end


@dataclass(eq=False, slots=True)
class Beat:
    """One beat of an event loop's heart: the *usage* then, when the next one is *due*, and the samples if that is late.

    ``latest`` is the latest usage from before a block.
    """

    usage: Usage
    due: float
    samples: list[Sample] = field(default_factory=list)
    latest: Usage = field(init=False)

    def __post_init__(self) -> None:
        self.latest = self.usage


class Block(NamedTuple):
    """One culprit has held the event loop for so many *seconds*."""

    seconds: float
    culprit: Culprit


class Evidence(NamedTuple):
    """The periods of garbage collection, those in which the process did not run, and those in which one thread kept the lock.

    *rate* is how many times a second the loop's thread had woken before. The *long_steps* are in order.
    """

    pauses: Periods = ()
    stops: Periods = ()
    locks: Periods = ()
    rate: float = 0.0
    long_steps: Iterable[LongStep] = ()


class _Holder(NamedTuple):
    """A culprit, and the number of its step; a reason has none."""

    culprit: Culprit
    step: int | None = None


_STOPPED = _Holder(Culprit.reason(STOPPED, "the system: the process was stopped, or had no processor to run on"))
_GARBAGE = _Holder(Culprit.reason(GARBAGE, "garbage collection"))
_BUSY = _Holder(Culprit.reason(BUSY, "several short steps in a row"))
_THREAD = _Holder(Culprit.reason(THREAD, "another thread, which kept Python's interpreter lock"))


class _Piece(NamedTuple):
    """The time between two looks at a blocked loop, the *sample* being the later one.

    For *lost* seconds its thread could not run, and for *collected* seconds garbage was collected. The first *early* seconds of
    the *rest* were before the sample's request began. *keeper* has kept the interpreter lock for a good part of the rest, if any has.
    For *sure* seconds the sample's long step has held the loop.
    """

    sample: Sample | None
    lost: float
    collected: float
    rest: float
    early: float
    keeper: Keeper | None
    sure: float

    @property
    def is_of_long_step(self) -> bool:
        """Whether it is known exactly when the step of its sample began."""
        return self.sample is not None and self.sample.long_step is not None

    @property
    def is_of_its_sample(self) -> bool:
        """Whether what the sample shows is known to have kept the lock."""
        return self.keeper is Keeper.LOOP and self.sample is not None and self.sample.may_keep_lock


def blame(beat: Beat, end: Usage, evidence: Evidence, *, least: float) -> list[Block]:
    """Return the blocks between a beat and the next one, which came at *end*; none if it came in time.

    No culprit with less than *least* seconds is blamed. If there is no other, ``busy`` has all of the time.
    """
    samples = _with_long_steps(beat, end, evidence.long_steps)
    begin, is_exact = _begin(beat, end, samples, evidence.pauses)
    # When a step began is mostly a guess. What may be a short one is no block.
    if end.at - (begin if is_exact else beat.due) < least:
        return []
    looks = [(beat.latest, None), *((each.usage, each) for each in samples), (end, None)]
    pieces = [_piece(earlier, later, sample, begin, evidence) for (earlier, _), (later, sample) in pairwise(looks)]
    holders = _holders(samples, pieces, least)
    # A step that has noted its end has nothing of what follows.
    befores = [None, *(_BUSY if each.is_end else holder for each, holder in zip(samples, holders, strict=True))]
    seconds: dict[_Holder, float] = defaultdict(float)
    for piece, before, after in zip(pieces, befores, [*holders, None], strict=True):
        for holder, share in _shares(piece, before, after):
            seconds[holder] += share
    for holder in _short_steps(seconds, holders, pieces, least):
        seconds[_BUSY] += seconds.pop(holder)
    return _blocks(seconds, least)


def _with_long_steps(beat: Beat, end: Usage, steps: Iterable[LongStep]) -> list[Sample]:
    """Return the samples between a beat and its *end*, and one more at the end of each long step."""
    samples = [each for each in beat.samples if each.usage.at < end.at]
    for number, step in enumerate(steps):
        if not beat.latest.at <= step.began < step.end.at < end.at:
            continue
        last = Sample(step.end, -1 - number, Culprit.request(step.labels, since=step.began), True, step)
        for index, each in enumerate(samples):
            if step.began <= each.usage.at < step.end.at and each.culprit and each.culprit.labels == step.labels:
                culprit = each.culprit._replace(since=step.began)
                samples[index] = each._replace(culprit=culprit, may_keep_lock=True, long_step=step)
                last = last._replace(step=each.step, culprit=culprit)
        samples.append(last)
    return sorted(samples, key=lambda sample: sample.usage.at)


def _begin(beat: Beat, end: Usage, samples: Sequence[Sample], pauses: Periods) -> tuple[float, bool]:
    """Return when the block began, between the beat and the moment in which the next one was due, and whether that is exact.

    It is for a garbage collection. A request that began in this time has not held the loop before. Otherwise it is the
    middle, or later if the beat was late by less than that.
    """
    for pause_begin, pause_end in pauses:
        if pause_end >= beat.due and beat.latest.at < pause_begin <= beat.due:
            return pause_begin, True
    if samples and beat.latest.at < samples[0].since <= beat.due:
        return samples[0].since, False
    return beat.due - min((beat.due - beat.latest.at) / 2, end.at - beat.due), False


def _piece(earlier: Usage, later: Usage, sample: Sample | None, begin: float, evidence: Evidence) -> _Piece:
    """Return what is known of the time between two usages, from the *begin* of the block on."""
    begin = max(begin, earlier.at)
    length = later.at - begin
    lost = min(length, max(_overlap(evidence.stops, begin, later.at), later.starved - earlier.starved))
    collected = min(length - lost, _overlap(evidence.pauses, begin, later.at))
    rest = length - lost - collected
    early = 0.0 if sample is None else min(rest, max(0.0, sample.since - begin))
    kept = _overlap(evidence.locks, begin, later.at) - lost - collected  # a collection keeps the lock, too
    keeper = lock_keeper(earlier, later, kept, evidence.rate) if kept > rest / 4 else None
    sure = 0.0
    if sample is not None and sample.long_step is not None:
        # The thread may have computed all the time before the step, and in the collections.
        sure = later.thread - earlier.thread - max(0.0, sample.since - earlier.at) - collected
        if keeper is not None:  # the watchdog was awake, so the process was not stopped
            sure = max(sure, rest - early - longest_wait(earlier, later))
        sure = min(max(0.0, sure), rest - early)
    return _Piece(sample, lost, collected, rest, early, keeper, sure)


def _holders(samples: Sequence[Sample], pieces: Sequence[_Piece], least: float) -> list[_Holder]:
    """Return who has held the loop at each sample. The piece before each has its number."""
    holders: list[_Holder] = []
    for _, group in groupby(samples, lambda sample: sample.step):
        run, number = list(group), len(holders)
        its = pieces[number : number + len(run)]
        looks = sum(not each.is_end for each in run)
        is_certain = (
            looks > 1 or any(piece.is_of_its_sample for piece in its) or sum(piece.sure for piece in its) >= least
        )
        holders += [_Holder(run[0].culprit or _LOOP, number) if is_certain else _BUSY] * len(run)
    return holders


def _shares(piece: _Piece, before: _Holder | None, after: _Holder | None) -> Iterator[tuple[_Holder, float]]:
    """Yield who has how many seconds of a piece: a line of the table at the top each."""
    yield _STOPPED, piece.lost
    yield _GARBAGE, piece.collected
    if piece.keeper is Keeper.THREAD:
        yield _THREAD, piece.rest
    elif after is not None and piece.is_of_its_sample:
        yield after, piece.rest - piece.early
        yield _BUSY, piece.early
    elif piece.keeper is not None and before is not None and before == after:
        yield before, piece.rest
    elif piece.keeper is not None:
        yield after or _BUSY, piece.sure
        yield _BUSY, piece.rest - piece.sure
    else:
        share = 0.0 if after is None else piece.rest - piece.early
        if before is not None and not piece.is_of_long_step:
            share = min(share, piece.rest / 2)
        yield after or _BUSY, share
        yield before or _BUSY, piece.rest - share


def _short_steps(
    seconds: Mapping[_Holder, float], holders: Sequence[_Holder], pieces: Sequence[_Piece], least: float
) -> list[_Holder]:
    """Return the steps that have less than *least* seconds. The first of several may have begun only when it was seen."""
    guesses = {}
    if len(set(holders)) > 1 and pieces[0].keeper is None and not pieces[0].is_of_long_step:
        guesses[holders[0]] = pieces[0].rest - pieces[0].early
    steps = [holder for holder in seconds if holder.step is not None]
    return [step for step in steps if seconds[step] - guesses.get(step, 0.0) < least]


def _blocks(seconds: Mapping[_Holder, float], least: float) -> list[Block]:
    """Return a block for each culprit that has *least* seconds. Long steps of one route add up."""
    blocks: dict[tuple[str, ...], Block] = {}
    for (culprit, _), each in seconds.items():
        if each >= least:
            earlier = blocks.get(culprit.labels, Block(0.0, culprit))
            blocks[culprit.labels] = earlier._replace(seconds=earlier.seconds + each)
    return list(blocks.values()) or [Block(sum(seconds.values()), _BUSY.culprit)]


def _overlap(periods: Periods, begin: float, end: float) -> float:
    return sum(max(0.0, min(end, last) - max(begin, first)) for first, last in periods)
