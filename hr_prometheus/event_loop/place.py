"""The place in an application's code that a stack is at."""

from __future__ import annotations

import os
import re
import sys
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_PYTHON = 2
_FRAME = re.compile(r'  File "(.+)", line (\d+) in (.+)')


class Place(NamedTuple):
    """A place in the code that was running. *file* is relative to the entry of ``sys.path`` that it is below."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def place_of(frames: Sequence[FrameType]) -> Place:
    """Return the innermost place in the application's own code, else in an installed package, else anywhere."""
    return _innermost([Place(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name) for frame in frames])


def place_in(stack: str) -> Place | None:
    """Return the same for a *stack* as faulthandler writes it; ``None`` if it is only in Python's code and ours."""
    places = [Place(file, int(line), function) for file, line, function in _FRAME.findall(stack)]
    return _innermost(places) if any(_kind(place.file) < _PYTHON for place in places) else None


def _innermost(places: Sequence[Place]) -> Place:
    place = min(places, key=lambda each: _kind(each.file))  # the first one of its kind
    return place._replace(file=_relative(place.file))


@lru_cache(maxsize=1024)
def _kind(file: str) -> int:
    """Return 0 for an application's own code, 1 for that of installed packages, ``_PYTHON`` for Python's and ours."""
    if file.startswith(("<", _PACKAGE)):  # the first is of no file, as in what dataclasses make
        return _PYTHON
    if any(part in file for part in _INSTALLED):
        return 1
    return _PYTHON if file.startswith(_library()) else 0


@cache
def _library() -> tuple[str, ...]:
    """Return the directories of Python's own modules."""
    import sysconfig  # noqa: PLC0415  # it is large, and needed when something blocks

    return tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib")})


@lru_cache(maxsize=1024)
def _relative(file: str) -> str:
    directories = [os.path.join(os.path.abspath(each), "") for each in sys.path]
    longest = max((each for each in directories if file.startswith(each)), key=len, default="")
    return file.removeprefix(longest) if longest else os.path.basename(file)
