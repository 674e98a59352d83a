"""The trace that a client says a request belongs to: https://www.w3.org/TR/trace-context-1/."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from multidict import istr

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The name of the header, which is quicker to look up so.
TRACEPARENT_HEADER = istr("traceparent")
# Section 3.2.2: version, trace id, parent id and flags. Version ff and ids of zeros are invalid. Only later versions have more.
_TRACEPARENT = re.compile(
    r"(?:00|((?!00|ff)[0-9a-f]{2}))-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?(1)(?:-.*)?)"
)
_SAMPLED = 0x01


class TraceParent(NamedTuple):
    """The trace of a request, and the span of its client."""

    trace_id: str
    span_id: str
    is_sampled: bool


def trace_parent(headers: Mapping[str, str]) -> TraceParent | None:
    """Return what the header of a request says, or ``None`` if it has none that is valid."""
    text = headers.get(TRACEPARENT_HEADER)
    return None if text is None else parse_trace_parent(text)


def parse_trace_parent(text: str) -> TraceParent | None:
    """Return what the value of a header says, or ``None`` if it is invalid."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    _, trace_id, span_id, flags = match.groups()
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))
