"""aiohttp's resources: their parameters, their domains, and the texts of their path labels."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from hr_prometheus.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aiohttp.web import AbstractResource, Application

#: The path label of requests that no route has matched. It has no leading slash, so it can be no path.
UNMATCHED = "unmatched"
#: The path label of requests that the HTTP parser has refused before there was a route.
MALFORMED = "malformed"

_LONGEST = 1000  # characters of a label
# Compiled when they are first used.
_PARAMETER = r"(\{\w+\})"
_PARAMETER_NAME = r"\{(\w+)\}"
_SURROGATE = "[\ud800-\udfff]"
_ANY_SEGMENT = "[^{}/]+"  # aiohttp's pattern for a parameter without one


def all_resources(app: Application) -> Iterator[AbstractResource]:
    """Yield the resources of an application and of the applications below it, in order of registration.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for a router of the application's own, which may have no list.
    """
    levels = [_resources(app)]  # applications may be nested deeper than Python's calls
    while levels:
        for resource, below in levels[-1]:
            if below is not None:
                levels.append(_resources(below))
                break
            yield resource
        else:
            levels.pop()


def _resources(app: Application) -> Iterator[tuple[AbstractResource, Application | None]]:
    """Yield each resource of an application alone, with the application that it leads to, if any."""
    if not has_list_of_routes(app):
        raise ConfigurationError(
            "the application has a router of its own, whose routes are unknown. Leave out the settings for routes."
        )
    for resource in app.router.resources():
        info: Any = resource.get_info()
        yield resource, info.get("app") if isinstance(info, Mapping) else None


def has_list_of_routes(app: Application) -> bool:
    """Whether an application has aiohttp's router. One of its own may have no list of routes."""
    from aiohttp.web import UrlDispatcher  # noqa: PLC0415  # the command shows its help without aiohttp

    return isinstance(app.router, UrlDispatcher)


def domains(app: Application) -> dict[Application, str]:
    """Return the domain of each application below *app* that has one: the argument of ``add_domain``.

    An application that was added by several domains has them all, with commas between.
    """
    names: dict[Application, dict[str, None]] = {}
    apps = deque([(app, "")])
    while apps:
        above, inherited = apps.popleft()
        for resource, below in _resources(above) if has_list_of_routes(above) else ():
            if below is not None:
                info: Any = resource.get_info()
                rule = info.get("rule")
                domain = inherited if rule is None else rule.get_info().get("domain") or resource.canonical
                names.setdefault(below, {})[domain] = None
                apps.append((below, domain))
    return {each: ",".join(filter(None, own)) for each, own in names.items() if any(own)}


def hosts(app: Application) -> dict[AbstractResource, str]:
    """Return the domain of each resource that has one."""
    return {resource: domain for below, domain in domains(app).items() for resource in all_resources(below)}


def all_applications(app: Application) -> Iterator[Application]:
    """Yield an application and those below it, as far as their routers list them."""
    apps = [app]
    for each in apps:  # which grows
        yield each
        if has_list_of_routes(each):
            apps += [below for _, below in _resources(each) if below is not None]


def has_start_up(app: Application) -> bool:
    """Whether an application, or one below it, has start-up handlers or contexts of its own, which may add routes."""
    return any(are_foreign([*each.on_startup, *each.cleanup_ctx]) for each in all_applications(app))


def are_foreign(handlers: Iterable[object]) -> bool:
    """Whether some of an application's handlers are neither aiohttp's own nor ours."""
    packages = {str(getattr(handler, "__module__", "")).partition(".")[0] for handler in handlers}
    return not packages <= {"aiohttp", "hr_prometheus"}


def parameter_names(resource: AbstractResource) -> frozenset[str]:
    """Return the names of the parameters in a route's pattern; empty for a route without any."""
    info: object = resource.get_info()
    if isinstance(info, Mapping) and "formatter" in info:
        return frozenset(re.findall(_PARAMETER_NAME, info["formatter"]))
    return frozenset()


def may_match(resource: AbstractResource, name: str, value: str) -> bool:
    """Whether a request to the resource may have *value* for its parameter *name*; in doubt it may."""
    info: Any = resource.get_info()
    pattern = getattr(info.get("pattern"), "pattern", None)
    group = _group(pattern, name) if isinstance(pattern, str) else None
    if group is None or re.search(r"\(\?(?!P<|:)|\\\d", group):  # it depends on the text around it
        return True
    # aiohttp matches the path with these two still encoded.
    return re.fullmatch(group, value.replace("%", "%25").replace("/", "%2F")) is not None


def _group(pattern: str, name: str) -> str | None:
    """Return the group of a name in a pattern, with its parentheses, or ``None``."""
    begin = end = pattern.find(f"(?P<{name}>")
    depth, is_class = 0, False
    while 0 <= end < len(pattern):
        character = pattern[end]
        if character == "\\":
            end += 1
        elif is_class:
            is_class = character != "]"
        elif character == "[":
            is_class = True
        else:
            depth += (character == "(") - (character == ")")
        end += 1
        if depth == 0:
            return pattern[begin:end]
    return None


def template(resource: AbstractResource) -> str:
    """Return a route's template: its path with ``{name}`` for each parameter."""
    info: object = resource.get_info()
    if isinstance(info, Mapping) and "prefix" in info and "directory" in info:
        return valid_text(unquote(info["prefix"]) + "/{filename}")
    return valid_text(unquote(resource.canonical))


def path_with_fixed_parameters(resource: AbstractResource, values: Mapping[str, str], fixed: Collection[str]) -> str:
    """Return a route's path with ``{name}`` for each *fixed* parameter and its value for each other."""
    text, names = path_format(resource, fixed)
    return text % tuple(values[name] for name in names)


def path_format(resource: AbstractResource, fixed: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """Return a route's path with ``{name}`` for each *fixed* parameter and ``%s`` for each other, and the other names."""
    info: Any = resource.get_info()
    if not parameter_names(resource):
        return "", ()
    # Every second part is a parameter. The text between is percent-encoded, while values are decoded.
    parts = [unquote(part).replace("%", "%%") for part in re.split(_PARAMETER, info["formatter"])]
    names = tuple(part[1:-1] for part in parts[1::2] if part[1:-1] not in fixed)
    parts[1::2] = ["%s" if part[1:-1] in names else part for part in parts[1::2]]
    return "".join(parts), names


def may_overlap(pattern: str, form: str) -> bool:
    """Whether a shell pattern may match a path of this :func:`path_format`, whatever the values are."""
    parts = re.findall(r"\[!?\]?[^\]]*\]|.", pattern, re.DOTALL)

    def behind_stars(places: Iterable[int]) -> set[int]:
        reached = set(places)
        for place in range(len(parts)):
            if place in reached and parts[place] == "*":
                reached.add(place + 1)
        return reached

    places = behind_stars([0])
    for each in re.findall("%s|%%|.", form, re.DOTALL):
        if not places:
            return False
        if each == "%s":  # any text
            places = set(range(min(places), len(parts) + 1))
        else:
            matched = [place for place in places if place < len(parts) and fnmatchcase(each[-1], parts[place])]
            places = behind_stars(place if parts[place] == "*" else place + 1 for place in matched)
    return len(parts) in places


def label_regex(resource: AbstractResource, fixed: Collection[str], allowed: Mapping[str, Collection[str]]) -> str:
    """Return a regular expression of RE2, and so of Prometheus, that every path label of a route matches as a whole.

    A parameter with a pattern of its own may match anything, because RE2 lacks some of Python's patterns.
    """
    info: Any = resource.get_info()
    if "formatter" not in info:
        return escaped(template(resource))
    parts = [escaped(unquote(part)) for part in re.split(_PARAMETER, info["formatter"])]
    for index in range(1, len(parts), 2):
        placeholder, name = parts[index], parts[index].strip("\\{}")
        if name in allowed:  # a folded label has the placeholder
            parts[index] = f"({'|'.join([*sorted(map(escaped, allowed[name])), placeholder])})"
        elif name not in fixed:
            pattern = _group(info["pattern"].pattern, name)
            parts[index] = "[^/]+" if pattern == f"(?P<{name}>{_ANY_SEGMENT})" else ".*"
    return "".join(parts)


def escaped(text: str) -> str:
    """Return a regular expression of RE2 and Python that matches *text* and nothing else."""
    return re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", text)


def valid_text(label: str) -> str:
    """Return *label* as text that UTF-8 can encode, cut to 1,000 characters, with an ellipsis as the last.

    A byte that is not UTF-8 becomes its percent-escape. aiohttp's pure-Python parser decodes it to a lone surrogate, on which
    every later scrape would fail.
    """
    text = re.sub(_SURROGATE, _percent_escaped, label)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _percent_escaped(match: re.Match[str]) -> str:
    try:
        return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # not a surrogate for a byte
        return "\N{REPLACEMENT CHARACTER}"
