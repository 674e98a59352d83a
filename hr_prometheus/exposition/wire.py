"""The wire format of protocol buffers, as far as metrics need it: https://protobuf.dev/programming-guides/encoding/.

A field is its tag and its value. The functions for a whole field are for those that are written seldom.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: The wire types.
VARINT, FIXED64, BYTES = range(3)
#: How many encodings of one kind are kept.
MOST_KEPT = 4096


class _Varints(dict[int, bytes]):
    """The varints of numbers. Those of small ones are kept: they come again and again."""

    def __missing__(self, number: int) -> bytes:
        if number < 0:
            return self[number & 0xFFFFFFFFFFFFFFFF]  # that of its 64 bits
        if number >= 1 << 14:
            return bytes((number & 127 | 128, number >> 7 & 127 | 128)) + self[number >> 14]
        text = bytes((number & 127 | 128, number >> 7)) if number > 127 else bytes((number,))
        if number < MOST_KEPT:
            self[number] = text
        return text


varint: Callable[[int], bytes] = _Varints().__getitem__
pack_double: Callable[[float], bytes] = struct.Struct("<d").pack


def zigzag(number: int) -> bytes:
    """Return a number of the types ``sint32`` and ``sint64``, in which small negative ones are short."""
    return varint(number * 2 if number >= 0 else -number * 2 - 1)


def zigzags(numbers: Iterable[float]) -> bytes:
    """Return several such numbers, one after the other."""
    text = bytearray()
    append = text.append
    for number in map(int, numbers):
        rest = number * 2 if number >= 0 else -number * 2 - 1
        while rest > 127:
            append(rest & 127 | 128)
            rest >>= 7
        append(rest)
    return bytes(text)


def tag(field: int, wire_type: int) -> bytes:
    """Return the tag of a field."""
    return varint(field << 3 | wire_type)


def whole(field: int, number: int) -> bytes:
    """Return a field with a whole number."""
    return tag(field, VARINT) + varint(number)


def double(field: int, number: float) -> bytes:
    """Return a field with a number of the type ``double``."""
    return tag(field, FIXED64) + pack_double(number)


def message(field: int, content: bytes) -> bytes:
    """Return a field with a message, or with bytes."""
    return b"".join((varint(field << 3 | BYTES), varint(len(content)), content))


def text(field: int, content: str) -> bytes:
    """Return a field with a text."""
    return message(field, content.encode())


def timestamp(field: int, seconds: float) -> bytes:
    """Return a field with a ``google.protobuf.Timestamp``: *seconds* since the epoch, to the millisecond.

    What is no time, such as NaN, gives nothing.
    """
    if not isfinite(seconds):
        return b""
    return varint(field << 3 | BYTES) + _time(round(seconds * 1000))


@lru_cache(maxsize=MOST_KEPT)
def _time(milliseconds: int) -> bytes:
    """Return a time since the epoch, after its length. Series with the same labels are created at about the same time."""
    seconds, rest = divmod(milliseconds, 1000)
    content = whole(1, seconds) + whole(2, rest * 1_000_000)
    return varint(len(content)) + content
