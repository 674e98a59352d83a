from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.mmap_dict import MmapedDict

from hr_prometheus.multiprocess.mmap_format import entries, pack, read_value, used_bytes


@settings(deadline=None)
@given(keys=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False), max_size=20))
def test_the_entries_are_those_that_prometheus_client_has_written(keys, tmp_path_factory):
    """Keys of any length have their own values, and packing them gives the same file."""
    path = str(tmp_path_factory.mktemp("entries") / "counter_w0.db")
    file = MmapedDict(path)
    for key, value in keys.items():
        file.write_value(key, value, 1.5)
    file.close()
    with open(path, "rb") as opened:
        data = opened.read()
    values = {key.decode(): read_value(data, position) for key, position in entries(data, used_bytes(data))}
    assert values == {key: (value, 1.5) for key, value in keys.items()}
    assert pack(values) == data[: used_bytes(data)]


def test_a_file_that_was_just_made_has_no_entries():
    """It is all zeros before the number of bytes in use is written."""
    assert list(entries(bytes(64), used_bytes(bytes(64)))) == []


@pytest.mark.parametrize(
    ("length", "end"),
    [
        (-28, 40),  # would lead back to the same entry
        (-1, 40),
        (1000, 40),
        (4, 32),  # the value ends after the bytes in use
        (4, 44),
    ],
)
def test_damage_is_an_error(length, end):
    """Reading neither loops for ever nor returns wrong values."""
    data = struct.pack("iii", end, 0, length) + bytes(200)
    with pytest.raises((ValueError, struct.error)):
        list(entries(data[:64], end))


@pytest.mark.parametrize("data", [b"", b"\1\2\3"])
def test_an_empty_file_has_nothing_in_use(data):
    """A worker that is killed while it makes a file leaves it empty."""
    with pytest.raises(struct.error):
        used_bytes(data)
