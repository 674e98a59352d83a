"""The records of a log as lines of JSON."""

from __future__ import annotations

import json
import logging

import pytest

from hr_prometheus.server.logs import JsonFormatter


class Shy:
    """An object that has no text."""

    def __repr__(self):
        raise RuntimeError("not for you")


def line_of(**extra: object) -> dict[str, object]:
    """Return the fields of a record with these attributes, as a strict reader has them."""
    record = logging.makeLogRecord({"msg": "in %s", "args": ("Rome",), "name": "shop", "levelname": "INFO"} | extra)
    return json.loads(JsonFormatter().format(record), parse_constant=pytest.fail)


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, "b", None, True]}, {"a": [1, "b", None, True]}),
        ({1, 2}, "{1, 2}"),
        ({("eu", 1): 3}, "{('eu', 1): 3}"),
        (CIRCLE, "[[...]]"),
        (float("nan"), "nan"),
        ([float("inf")], "[inf]"),
        (10**5000, "<int>"),
        (Shy(), "<Shy>"),
        ("\udc80", "\udc80"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_logged_is_a_line(value, expected):
    """An application may give anything as extra; what JSON does not have is a text."""
    assert line_of(value=value)["value"] == expected


def test_names_that_a_line_has_already():
    """What was given under one of them is beside it."""
    fields = line_of(level=3, time="noon")
    assert (fields["level"], fields["extra_level"], fields["extra_time"]) == ("INFO", 3, "noon")
    assert fields["message"] == "in Rome"
