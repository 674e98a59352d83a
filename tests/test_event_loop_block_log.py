from __future__ import annotations

from hr_prometheus.event_loop.blame import Block
from hr_prometheus.event_loop.block_log import BlockLog
from hr_prometheus.event_loop.culprit import GARBAGE, Culprit
from hr_prometheus.event_loop.place import Place


def block(function, line=41, labels=("GET", "/cells/{id}")):
    return Block(0.339, Culprit(labels, " ".join(labels), Place("report.py", line, function)))


def test_a_warning_has_the_seconds_the_request_and_the_place(caplog):
    """It is one sentence."""
    BlockLog().write(block("render"), 0.0)
    assert caplog.messages == ["The event loop was blocked for 0.34 s by GET /cells/{id}, at report.py:41 in render."]


def test_what_has_no_place_is_named(caplog):
    """Garbage collection, for example, is nowhere in the code."""
    BlockLog().write(Block(0.3, Culprit(("", GARBAGE), "garbage collection")), 0.0)
    assert caplog.messages == ["The event loop was blocked for 0.30 s by garbage collection."]


def test_a_function_is_warned_of_once(caplog):
    """Whichever of its lines was running, and whoever has called it."""
    log = BlockLog()
    for line in range(3):
        log.write(block("render", line, ("GET", f"/{line}")), 1000.0 * line)
    assert len(caplog.messages) == 1


def test_there_are_few_warnings_in_a_minute(caplog):
    """One line says how many were left out, and they are warned of when they come again."""
    log = BlockLog()
    for number in range(8):
        log.write(block(f"function_{number}"), number)
    assert len(caplog.messages) == 5
    log.end_minute(59.0)
    assert len(caplog.messages) == 5
    log.end_minute(61.0)
    log.end_minute(200.0)
    assert caplog.messages[5:] == ["The event loop was also blocked at other places, 3 times in a minute."]
    log.write(block("function_7"), 300.0)
    assert "function_7" in caplog.messages[-1]
