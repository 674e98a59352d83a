"""The lines of a TOML document's keys, which :mod:`tomllib` does not tell."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Names of tables and of a key, and the number of an item in its array.
Path = tuple[str | int, ...]

#: Strings and comments as a whole, brackets, commas, ends of lines, and what stands between them.
_MARK = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*|[\[\]{},\n]|[^\s\[\]{},"'#]+''',
    re.DOTALL,
)
#: Names in a path: more than a setting has. Those of a key may be thousands.
_MOST_NAMES = 32


def key_lines(text: str) -> dict[Path, int]:
    """Return the line of each key of a valid document, by the names of the tables that it is in and its own.

    An item of an array has one as well, by its number, if that is another line than its key's.
    """
    lines: dict[Path, int] = {}
    header: Path = ()
    for line, statement, item_lines in _statements(text):
        document = tomllib.loads(statement)  # which is a header or a key, and valid by itself
        paths = list(_paths(document))
        if statement.startswith("["):
            header = paths[-1]
        else:
            paths = [(*header, *path) for path in paths]
        for path in paths:
            lines.setdefault(path, line)
        for number, item_line in enumerate(item_lines):
            if item_line != line:
                lines[*paths[-1], number] = item_line
    return lines


def deepest_line(text: str) -> int:
    """Return the first line where most brackets are open."""
    return max(_marks(text), key=lambda mark: mark[2], default=("", 1, 0))[1]


def _statements(text: str) -> Iterator[tuple[int, str, list[int]]]:
    """Yield the first lines of the headers and the keys with their values, their texts, and the lines of an array's items."""
    start, first_line, before = -1, 0, ""
    item_lines: list[int] = []
    for match, line, depth in _marks(f"{text}\n"):
        mark = match[0]
        if mark.startswith("#"):
            continue
        if mark == "\n":
            if depth == 0 and start >= 0:
                yield first_line, text[start : match.start()], item_lines
                start = -1
            continue
        if start < 0:
            start, first_line, item_lines = match.start(), line, []
        elif depth == 1 and mark != "]" and (before == "[" or (before == "," and item_lines)):
            item_lines.append(line)
        before = mark


def _marks(text: str) -> Iterator[tuple[re.Match[str], int, int]]:
    """Yield the marks, each with its line and the number of brackets that are open before it."""
    line, depth = 1, 0
    for match in _MARK.finditer(text):
        yield match, line, depth
        mark = match[0]
        line += mark.count("\n")
        depth += (mark in "[{") - (mark in "]}")


def _paths(value: Any, names: int = _MOST_NAMES) -> Iterator[Path]:
    """Yield the path of each key, those of inline tables and of arrays of tables included."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict) and names:
        for key, inner in value.items():
            yield (key,)
            yield from ((key, *path) for path in _paths(inner, names - 1))
