"""The entries of prometheus_client's files, as its ``MmapedDict`` describes them.

At 0 stands the number of bytes in use. From 8 on there are entries: the length of a key, the key, padded with 1 to 8
blanks, a value, and the time at which it was set. Entries are only ever appended, and their numbers do not move.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_ENTRY: Final = 8

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
