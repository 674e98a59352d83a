from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.mmap_dict import MmapedDict

from hr_prometheus.multiprocess.mmap_format import entries, packed, timed, used


@settings(deadline=None)
@given(keys=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False), max_size=20))
def test_the_entries_are_those_that_prometheus_client_has_written(keys, tmp_path_factory):
    """Keys of any length, and the positions of their numbers."""
    path = str(tmp_path_factory.mktemp("entries") / "counter_w0.db")
    file = MmapedDict(path)
    for key, value in keys.items():
        file.write_value(key, value, 1.5)
    file.close()
    with open(path, "rb") as opened:
        data = opened.read()
    found = {key.decode(): timed(data, position) for key, position in entries(data, used(data))}
    assert found == {key: (value, 1.5) for key, value in keys.items()}
    assert packed(found) == data[: used(data)]


def test_a_file_that_was_just_made_has_no_entries():
    """It is all zeros, before its first number says how much is in use."""
    assert list(entries(bytes(64), used(bytes(64)))) == []


@pytest.mark.parametrize(
    ("length", "end"),
    [
        (-28, 40),  # would lead back to where it stands
        (-1, 40),
        (1000, 40),
        (4, 32),  # the number ends behind what is in use
        (4, 44),
    ],
)
def test_damage_is_an_error(length, end):
    """It neither goes on for ever nor passes for numbers."""
    data = struct.pack("iii", end, 0, length) + bytes(200)
    with pytest.raises((ValueError, struct.error)):
        list(entries(data[:64], end))


@pytest.mark.parametrize("data", [b"", b"\1\2\3"])
def test_an_empty_file_has_nothing_in_use(data):
    """A worker that is killed while it makes a file leaves it empty."""
    with pytest.raises(struct.error):
        used(data)
