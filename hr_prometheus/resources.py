"""What there is to know of aiohttp's resources: their parameters, and the texts that requests to them are named by."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp.web import AbstractResource, Application

_LONGEST = 1000  # characters of a label
# Compiled when they are first used.
_PARAMETER = r"(\{\w+\})"
_PARAMETER_NAME = r"\{(\w+)\}"
_SURROGATE = "[\ud800-\udfff]"


def all_resources(app: Application) -> Iterator[AbstractResource]:
    """Yield the resources of an application and of the applications below it, in order of registration."""
    for resource in app.router.resources():
        info: Any = resource.get_info()
        below = info.get("app")
        if below is None:
            yield resource
        else:
            yield from all_resources(below)


def parameter_names(resource: AbstractResource) -> frozenset[str]:
    """Return the names of the parameters in a route's pattern; empty for a route without any."""
    info: object = resource.get_info()
    if isinstance(info, Mapping) and "formatter" in info:
        return frozenset(re.findall(_PARAMETER_NAME, info["formatter"]))
    return frozenset()


def may_match(resource: AbstractResource, name: str, value: str) -> bool:
    """Whether a request to the resource can have *value* for its parameter *name*."""
    info: Any = resource.get_info()
    pattern = info["pattern"].pattern
    begin = pattern.index(f"(?P<{name}>")
    depth, end, is_class = 0, begin, False
    while True:  # to the parenthesis that closes the group
        character = pattern[end]
        if character == "\\":
            end += 1
        elif is_class:
            is_class = character != "]"
        elif character == "[":
            is_class = True
        else:
            depth += (character == "(") - (character == ")")
            if depth == 0 and character == ")":
                break
        end += 1
    return re.fullmatch(pattern[begin : end + 1], value) is not None


def template(resource: AbstractResource) -> str:
    """Return the label of a route all of whose parameters are fixed: its path with ``{name}`` for each."""
    info: object = resource.get_info()
    if isinstance(info, Mapping) and "prefix" in info and "directory" in info:
        return valid_text(unquote(info["prefix"]) + "/{filename}")
    return valid_text(unquote(resource.canonical))


def path_with_fixed_parameters(resource: AbstractResource, values: Mapping[str, str], fixed: Collection[str]) -> str:
    """Return a route's path with ``{name}`` for each *fixed* parameter and its value for each other."""
    info: Any = resource.get_info()
    # Every second part is a parameter. What is between is percent-encoded, while values are decoded.
    parts = [unquote(part) for part in re.split(_PARAMETER, info["formatter"])]
    parts[1::2] = [part if part[1:-1] in fixed else values[part[1:-1]] for part in parts[1::2]]
    return "".join(parts)


def valid_text(label: str) -> str:
    """Return *label* as text that UTF-8 can encode: a raw byte that is no UTF-8 becomes its percent-escape.

    aiohttp's pure-Python parser decodes such bytes to lone surrogates, on which every later scrape would fail.
    What is longer than 1,000 characters is cut, and ends with an ellipsis.
    """
    text = re.sub(_SURROGATE, _percent_escaped, label)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _percent_escaped(match: re.Match[str]) -> str:
    try:
        return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return "\N{REPLACEMENT CHARACTER}"
