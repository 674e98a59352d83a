"""The entries of prometheus_client's files, as its ``MmapedDict`` describes them.

At 0 stands the number of bytes in use. From 8 on there are entries: the length of a key, the key, padded with 1 to 8
blanks, a value, and the time at which it was set. Entries are only ever appended, and their numbers do not move.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    #: A value, and the time at which it was set in seconds since the epoch; 0.0 if nobody asked for that.
    Timed: TypeAlias = tuple[float, float]

FIRST_ENTRY: Final = 8

#: Returns the value and the time that stand at a position.
timed: Callable[[bytes, int], Timed] = struct.Struct("dd").unpack_from

_int = struct.Struct("i").unpack_from


def used(data: bytes) -> int:
    """Return how many bytes of a file are in use; raises an exception if the file is empty, or ends within that."""
    (size,) = _int(data)
    return size or FIRST_ENTRY  # a file that was just made is all zeros


def entries(data: bytes, end: int, position: int = FIRST_ENTRY) -> Iterator[tuple[bytes, int]]:
    """Yield the keys from *position* to *end*, each with the position of its two numbers.

    Raises a ``ValueError`` or :exc:`struct.error` where the file is damaged. prometheus_client's own reader can go
    round in circles there.
    """
    while position < end:
        (length,) = _int(data, position)
        start = position + 4
        numbers = start + length + 8 - (length + 4) % 8
        if length < 0 or numbers + 16 > len(data):
            raise ValueError(f"the entry at {position} goes beyond the end of the file")
        yield data[start : start + length], numbers
        position = numbers + 16
    if position != end:
        raise ValueError(f"the entries end at {position} and not at {end}")


def packed(numbers: Mapping[str, Timed]) -> bytes:
    """Return what a file with these entries contains."""
    data = bytearray(FIRST_ENTRY)
    for key, (value, time) in numbers.items():
        text = key.encode()
        padded = text + b" " * (8 - (len(text) + 4) % 8)
        data += struct.pack(f"i{len(padded)}sdd", len(text), padded, value, time)
    struct.pack_into("i", data, 0, len(data))
    return bytes(data)


def contents(path: str) -> dict[str, Timed] | None:
    """Return all keys and numbers of a file; ``None`` if it is empty, damaged or not there."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        return {key.decode(): timed(data, position) for key, position in entries(data, used(data))}
    except (struct.error, ValueError, FileNotFoundError):
        return None
