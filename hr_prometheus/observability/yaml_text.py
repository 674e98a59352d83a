"""YAML as people write it, for mappings, lists, strings and numbers; the same value makes the same text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Value: TypeAlias = "str | int | float | Mapping[str, Value] | Sequence[Value]"

# Strings that need no quotes in any version of YAML: words that are not a boolean, null or a number.
_PLAIN = r"(?!(?i:true|false|yes|no|on|off|y|n|null)$)[A-Za-z_/][A-Za-z0-9_/.-]*"


def render_yaml(value: Value, *comments: str) -> str:
    """Return a YAML document with *comments* above it, a line each."""
    return "".join(f"{line}\n" for line in (*(f"# {comment}".rstrip() for comment in comments), *_lines(value)))


def quote(text: str) -> str:
    """Return *text* in double quotes, as YAML, PromQL and JSON read it; unprintable characters are escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(character if character.isprintable() else _escape(ord(character)) for character in quoted)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _lines(value: Value) -> Iterator[str]:
    """Yield the lines of a mapping or a list."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _entry(f"{_scalar(key)}:", below)
    elif isinstance(value, Sequence):
        for below in value:
            if isinstance(below, Mapping) and below:
                first, *others = _lines(below)
                yield f"- {first}"
                yield from (f"  {line}" for line in others)
            else:
                yield from _entry("-", below)


def _entry(head: str, value: Value) -> Iterator[str]:
    if isinstance(value, str) and _is_block(value):
        yield f"{head} |-"
        yield from (f"  {line}" for line in value.split("\n"))
    elif isinstance(value, str | int | float):
        yield f"{head} {_scalar(value)}"
    elif not value:
        yield f"{head} {'{}' if isinstance(value, Mapping) else '[]'}"
    else:
        yield head
        yield from (f"  {line}" for line in _lines(value))


def _is_block(text: str) -> bool:
    """Whether a string can be written as it is, in lines of its own, and is easier to read so."""
    lines = text.split("\n")
    is_plain = all(line.isprintable() and line.strip() for line in lines) and not lines[0].startswith(" ")
    return is_plain and (len(lines) > 1 or '"' in text)


def _scalar(value: str | float) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    return value if re.fullmatch(_PLAIN, value) else quote(value)
