"""The wire format of protocol buffers, as far as metrics need it: https://protobuf.dev/programming-guides/encoding/.

A field is its tag and its value. The functions for a whole field are for those that are written seldom.
"""

from __future__ import annotations

import struct
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: The wire types.
VARINT, FIXED64, BYTES = range(3)
#: How many varints are kept.
_MOST_KEPT = 4096


class _Varints(dict[int, bytes]):
    """The varints of numbers. The same ones come again and again. A negative number has that of its 64 bits."""

    def __missing__(self, number: int) -> bytes:
        rest = number & 0xFFFFFFFFFFFFFFFF
        result = bytearray()
        while rest >= 128:
            result.append(rest & 127 | 128)
            rest >>= 7
        result.append(rest)
        text = bytes(result)
        if len(self) < _MOST_KEPT:
            self[number] = text
        return text


varint: Callable[[int], bytes] = _Varints().__getitem__
pack_double: Callable[[float], bytes] = struct.Struct("<d").pack


def zigzag(number: int) -> bytes:
    """Return a number of the types ``sint32`` and ``sint64``, in which small negative ones are short."""
    return varint(number * 2 if number >= 0 else -number * 2 - 1)


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
    whole_seconds, milliseconds = divmod(round(seconds * 1000), 1000)
    first, second = varint(whole_seconds), varint(milliseconds * 1_000_000)
    size = varint(len(first) + len(second) + 2)
    return b"".join((varint(field << 3 | BYTES), size, _SECONDS, first, _NANOSECONDS, second))


_SECONDS, _NANOSECONDS = tag(1, VARINT), tag(2, VARINT)
