"""The place in an application's code that a stack is at."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib")})
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Place(NamedTuple):
    """A place in the code that was running. *file* is relative to the entry of ``sys.path`` that it is below."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def place_of(frames: Sequence[FrameType]) -> Place:
    """Return the innermost place in the application's own code, else in an installed package, else anywhere."""
    kinds = [_kind(frame.f_code.co_filename) for frame in frames]
    frame = frames[kinds.index(min(kinds))]
    return Place(_relative(frame.f_code.co_filename), frame.f_lineno or 0, frame.f_code.co_name)


@lru_cache(maxsize=1024)
def _kind(file: str) -> int:
    """Return 0 for an application's own code, 1 for that of installed packages, 2 for Python's and ours."""
    if file.startswith(("<", _PACKAGE)):  # the first is of no file, as in what dataclasses make
        return 2
    if any(part in file for part in _INSTALLED):
        return 1
    return 2 if file.startswith(_LIBRARY) else 0


@lru_cache(maxsize=1024)
def _relative(file: str) -> str:
    directories = [os.path.join(os.path.abspath(each), "") for each in sys.path]
    longest = max((each for each in directories if file.startswith(each)), key=len, default="")
    return file.removeprefix(longest) if longest else os.path.basename(file)
