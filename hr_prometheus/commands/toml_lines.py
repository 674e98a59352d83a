"""The lines of a TOML document's keys, which :mod:`tomllib` does not tell."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where a statement may end or go on: strings and comments as a whole, brackets, ends of lines.
_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*|[\[\]{}\n]''', re.DOTALL
)


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line of each key of a valid document, by the names of the tables that it is in and its own."""
    lines: dict[tuple[str, ...], int] = {}
    header: tuple[str, ...] = ()
    for line, statement in _statements(text):
        document = tomllib.loads(statement)  # which is a header or a key, and valid by itself
        paths = list(_paths(document))
        if statement.lstrip().startswith("["):
            header = paths[-1]
        else:
            paths = [(*header, *path) for path in paths]
        for path in paths:
            lines.setdefault(path, line)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield the headers and the keys with their values, each with its first line."""
    start = depth = 0
    for token in _TOKEN.finditer(f"{text}\n"):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if token[0] == "\n" and depth == 0:
            yield text.count("\n", 0, start) + 1, text[start : token.start()]
            start = token.end()


def _paths(value: Any) -> Iterator[tuple[str, ...]]:
    """Yield the path of each key, those of inline tables and of arrays of tables included."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (key,)
            yield from ((key, *path) for path in _paths(inner))
