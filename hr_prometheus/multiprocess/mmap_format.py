"""The format of prometheus_client's files, as its ``MmapedDict`` describes it.

At 0 stands the number of bytes in use. Entries follow from 8 on: the length of a key, the key, padded with 1 to 8
blanks, a value and its timestamp. Entries are only ever appended, so their values keep their positions.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    #: A value, and the time at which it was set in seconds since the epoch; only gauges of the mode ``mostrecent`` have one.
    TimedValue: TypeAlias = tuple[float, float]

FIRST_ENTRY: Final = 8

#: Returns the value and the timestamp at a position.
read_value: Callable[[bytes, int], TimedValue] = struct.Struct("dd").unpack_from

_read_int = struct.Struct("i").unpack_from


def used_bytes(data: bytes) -> int:
    """Return how many bytes of a file are in use. Raises :exc:`struct.error` if it is empty."""
    (size,) = _read_int(data)
    return size or FIRST_ENTRY  # a file that was just made is all zeros


def entries(data: bytes, end: int, position: int = FIRST_ENTRY) -> Iterator[tuple[bytes, int]]:
    """Yield the keys from *position* to *end*, each with the position of its value.

    Raises a ``ValueError`` or :exc:`struct.error` where the file is damaged. prometheus_client's own reader can loop
    for ever there.
    """
    while position < end:
        (length,) = _read_int(data, position)
        start = position + 4
        value = start + length + 8 - (length + 4) % 8
        if length < 0 or value + 16 > len(data):
            raise ValueError(f"the entry at {position} goes beyond the end of the file")
        yield data[start : start + length], value
        position = value + 16
    if position != end:
        raise ValueError(f"the entries end at {position} and not at {end}")


def pack(values: Mapping[str, TimedValue]) -> bytes:
    """Return the content of a file with these values, by key."""
    data = bytearray(FIRST_ENTRY)
    for key, (value, timestamp) in values.items():
        text = key.encode()
        padded = text + b" " * (8 - (len(text) + 4) % 8)
        data += struct.pack(f"i{len(padded)}sdd", len(text), padded, value, timestamp)
    struct.pack_into("i", data, 0, len(data))
    return bytes(data)


def read_file(path: str) -> dict[str, TimedValue] | None:
    """Return the values of a file by key; ``None`` if it is empty, damaged or missing."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        return {key.decode(): read_value(data, position) for key, position in entries(data, used_bytes(data))}
    except (struct.error, ValueError, FileNotFoundError):
        return None
