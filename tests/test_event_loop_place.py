from __future__ import annotations

import json
import sys

from aiohttp import web

from hr_prometheus.event_loop.place import place_of
from hr_prometheus.settings import Settings


def frames_of(call):
    """Return the frames below this function in which *call* fails, from the innermost on."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  # it is called for that
        traceback = error.__traceback__.tb_next
    frames = []
    while traceback is not None:
        frames.insert(0, traceback.tb_frame)
        traceback = traceback.tb_next
    return frames


def test_the_innermost_place_of_the_application():
    """Not in the library that it calls, which is none of its own."""
    place = place_of(frames_of(lambda: json.loads("{")))
    assert (place.file.rpartition("/")[2], place.function) == ("test_event_loop_place.py", "<lambda>")
    assert str(place) == f"{place.file}:{place.line} in <lambda>"


def test_without_code_of_the_application_the_innermost_of_a_package():
    """What the standard library does for a package is the package's."""
    frames = frames_of(lambda: web.Application().router.add_get("no slash", None))[:-1]
    assert frames
    place = place_of(frames)
    assert place.file == "aiohttp/web_urldispatcher.py"
    assert place.line > 0


def test_python_and_hr_prometheus_come_last():
    """Their own places are shown if there is no other."""
    assert place_of(frames_of(lambda: json.loads("{"))[:-1]).file == "json/decoder.py"
    ours = place_of(frames_of(lambda: Settings(target="x", app_dir="nowhere"))[:-1])
    assert ours.file == "hr_prometheus/settings.py"


def test_a_file_that_is_nowhere_on_the_path(monkeypatch):
    """It is shown by its own name."""
    monkeypatch.setattr(sys, "path", [])
    code = compile("1 / 0", "/elsewhere/made.py", "exec")
    place = place_of(frames_of(lambda: exec(code))[:1])  # noqa: S102  # the code is the test's
    assert str(place) == "made.py:1 in <module>"
