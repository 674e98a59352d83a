"""From a request to the labels ``(method, path)`` it is recorded under.

The route label (the value of ``path``) of a route with parameters is the concrete path, so that
``direction=north`` can be told from ``direction=south``. What keeps that bounded is here: fixed parameters,
which appear as ``{name}``, and the budget, the number of distinct labels that a route may have before
further ones are folded into the route's template.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import unquote

from aiohttp.web import HTTPException

from hr_prometheus.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aiohttp.abc import AbstractMatchInfo
    from aiohttp.web import AbstractResource, AbstractRoute, Application, Request

logger = logging.getLogger("hr_prometheus")

#: What requests are recorded under that no route matched. It has no leading slash, so it can be no path.
UNMATCHED = "unmatched"
#: What requests are recorded under that the HTTP parser refused before there was a route.
MALFORMED = "malformed"
#: What a method is recorded under that neither the IANA registry nor the application knows.
UNKNOWN = "unknown"
#: Stands for every route, or for every parameter of a route.
ALL = "*"
#: How many distinct path labels a route may have in one process before further ones are folded.
DEFAULT_PATH_BUDGET = 100

# https://www.iana.org/assignments/http-methods/http-methods.xhtml
_METHODS = frozenset(
    "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY "
    "MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT "
    "QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF "
    "VERSION-CONTROL".split()
)
_LONGEST = 1000  # characters of a label
_PARAMETER = re.compile(r"(\{\w+\})")
_PARAMETER_NAME = re.compile(r"\{(\w+)\}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSEEN: Any = object()

T = TypeVar("T")


def fixed_parameters(value: object) -> dict[str, frozenset[str]]:
    """Check and copy ``{route name: [parameter, …]}``, where ``*`` may stand for each name.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError`, a :exc:`ValueError`, for any other shape.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            "fixed_routes_parameters is no mapping of route names to parameter names but "
            f'{_kind(value)}. Expected, for example, {{"get_cell": ["cell_id"]}}.'
        )
    fixed: dict[str, frozenset[str]] = {}
    for name, parameters in value.items():
        # An exact list of types: a string is a collection too, and a mapping is no list of names.
        if not isinstance(parameters, (list, tuple, set, frozenset)) or not all(
            isinstance(parameter, str) for parameter in parameters
        ):
            raise ConfigurationError(
                f"fixed_routes_parameters[{name!r}] is {_kind(parameters)}. Expected a list, tuple or set of "
                'parameter names, for example ["cell_id"].'
            )
        fixed[name] = frozenset(parameters)
    return fixed


def _kind(value: object) -> str:
    return f"{value!r}, of type {type(value).__name__}"


class Labels(Generic[T]):
    """What a middleware knows of labels: the rules of one application and what was made for the labels so far.

    *make* is called once for each new pair ``(method, path)``; what it returns is what :meth:`find` finds for
    the requests with these labels. *fixed* maps route names to the parameters that appear as ``{name}``. *path_budget* is the number of
    distinct path labels a route may have. Requests whose path label matches one of the shell patterns in
    *exclude* have no labels. *folded* is called with the route's template for each folded request.
    *applies* says of a match whether its requests are ours to record.
    """

    def __init__(
        self,
        make: Callable[[tuple[str, str]], T],
        *,
        fixed: Mapping[str, Collection[str]] | None = None,
        path_budget: int = DEFAULT_PATH_BUDGET,
        exclude: Iterable[str] = (),
        folded: Callable[[str], None] = lambda _template: None,
        applies: Callable[[AbstractMatchInfo], bool] = lambda _match_info: True,
    ) -> None:
        self.make = make
        self.fixed = fixed_parameters(fixed or {})
        self.path_budget = path_budget
        self.folded = folded
        patterns = "|".join(translate(pattern) for pattern in exclude)
        self._excluded = re.compile(patterns).match if patterns else None
        self._applies = applies
        #: What :meth:`find` finds for routes that have one method and one label, for those in a hurry.
        self.constant: dict[AbstractRoute, T | None] = {}
        self._rules: dict[AbstractRoute, _Rule[T]] = {}
        self._patterns: dict[AbstractResource, _Rule[T]] = {}
        self._unmatched = _Rule(self, UNMATCHED)

    def find(self, request: Request) -> T | None:
        """Return what was made for the labels of *request*, or ``None`` if it is not to be recorded."""
        match_info = request.match_info
        route = match_info.route
        found = self.constant.get(route, _UNSEEN)
        if found is not _UNSEEN:
            return found
        rule = self._rules.get(route)
        if rule is None:
            if isinstance(match_info.http_exception, HTTPException):
                # Each such match has a route of its own, so nothing may be kept of it.
                return self._unmatched.find(request) if self._applies(match_info) else None
            rule = self._rules[route] = self._rule(route, match_info)
            if rule.is_constant and route.method == request.method:
                self.constant[route] = rule.find(request)
        return rule.find(request)

    def excluded(self, label: str) -> bool:
        """Whether requests with this path label are left out."""
        return self._excluded is not None and self._excluded(label) is not None

    def _rule(self, route: AbstractRoute, match_info: AbstractMatchInfo) -> _Rule[T]:
        if not self._applies(match_info):
            return _Rule(self, None)
        resource = route.resource
        if resource is None:
            return _Rule(self, UNMATCHED)
        # The budget is that of the pattern, whatever the method.
        if resource not in self._patterns:
            self._patterns[resource] = self._pattern_rule(resource)
        return self._patterns[resource]

    def _pattern_rule(self, resource: AbstractResource) -> _Rule[T]:
        if not isinstance(resource.canonical, str):
            # No resource of aiohttp's but a unit test's stand-in, of which only the request's path is known.
            return _Rule(self, UNMATCHED, kept=("path",))
        parameters = parameter_names(resource)
        fixed = self.fixed.get(ALL, frozenset()) | self.fixed.get(resource.name or "", frozenset())
        kept = () if ALL in fixed else tuple(sorted(parameters - fixed))
        return _Rule(self, template(resource), resource=resource, kept=kept, whole=len(kept) == len(parameters))


class _Rule(Generic[T]):
    """The labels of one route pattern: a fixed text, or one filled in from each request."""

    __slots__ = ("_admitted", "_folded", "_kept", "_labels", "_resource", "_seen", "_template", "_whole")

    def __init__(
        self,
        labels: Labels[T],
        template: str | None,
        *,
        resource: AbstractResource | None = None,
        kept: tuple[str, ...] = (),
        whole: bool = True,
    ) -> None:
        self._labels = labels
        self._template = template
        self._resource = resource
        self._kept = kept  # the parameters whose values appear in the label
        self._whole = whole  # whether these are all, so that the label is the path as it is
        self._seen: dict[tuple[str, object], T] = {}
        self._admitted: set[str] = set()
        self._folded: dict[str, T] = {}

    @property
    def is_constant(self) -> bool:
        """Whether all requests with one method have one label."""
        return not self._kept

    def find(self, request: Request) -> T | None:
        """Return what was made for the labels of *request*, or ``None`` if it is not to be recorded."""
        values: object = None
        if self._kept:
            match_info = request.match_info
            values = request.path if self._whole else tuple([match_info[name] for name in self._kept])
        found = self._seen.get((request.method, values), _UNSEEN)
        return self._learn(request, values) if found is _UNSEEN else found

    def _learn(self, request: Request, values: object) -> T | None:
        """Make the labels of a request that is the first with this method and these values."""
        if self._template is None:
            return None
        method = request.method if request.method in _METHODS else self._own_method(request)
        if method == UNKNOWN and (UNKNOWN, values) in self._seen:
            return self._seen[UNKNOWN, values]
        path = self._path(request) if self._kept else self._template
        label = valid_text(path)
        if self._labels.excluded(label):
            return None
        if self._kept and label not in self._admitted:
            if len(self._admitted) >= self._labels.path_budget:
                return self._fold(method)
            self._admitted.add(label)
        made = self._labels.make((method, label))
        if label == path:  # of the texts that are recorded as another there is no end
            self._seen[method, values] = made
        return made

    def _path(self, request: Request) -> str:
        if self._whole or self._resource is None:
            return request.path
        return path_with_fixed_parameters(
            self._resource, request.match_info, parameter_names(self._resource) - set(self._kept)
        )

    @staticmethod
    def _own_method(request: Request) -> str:
        """Return a method of the application's own invention as it is, a client's as ``unknown``."""
        registered = request.match_info.route.method
        return registered if registered == request.method else UNKNOWN

    def _fold(self, method: str) -> T:
        template = self._template or UNMATCHED
        if not self._folded:
            name = getattr(self._resource, "name", None) or ALL
            some = next(iter(self._kept))
            logger.warning(
                "The route %s has used its budget of %d path labels; further paths are recorded as this template. "
                "To group a parameter's values: --fixed-route %s=%s "
                "(as a library: fixed_routes_parameters={%r: [%r]}); for more labels: --path-budget.",
                template,
                self._labels.path_budget,
                name,
                some,
                name,
                some,
            )
        self._labels.folded(template)
        if method not in self._folded:
            self._folded[method] = self._labels.make((method, template))
        return self._folded[method]


def parameter_names(resource: AbstractResource) -> frozenset[str]:
    """Return the names of the parameters in a route's pattern; empty for a route without any."""
    info: object = resource.get_info()
    if isinstance(info, Mapping) and "formatter" in info:
        return frozenset(_PARAMETER_NAME.findall(info["formatter"]))
    return frozenset()


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
    parts = [unquote(part) for part in _PARAMETER.split(info["formatter"])]
    parts[1::2] = [part if part[1:-1] in fixed else values[part[1:-1]] for part in parts[1::2]]
    return "".join(parts)


def valid_text(label: str) -> str:
    """Return *label* as text that UTF-8 can encode: a raw byte that is no UTF-8 becomes its percent-escape.

    aiohttp's pure-Python parser decodes such bytes to lone surrogates, on which every later scrape would fail.
    What is longer than 1,000 characters is cut, and ends with an ellipsis.
    """
    text = _SURROGATE.sub(_percent_escaped, label)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _percent_escaped(match: re.Match[str]) -> str:
    try:
        return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return "\N{REPLACEMENT CHARACTER}"


def check_fixed_parameters(app: Application, fixed: Mapping[str, Collection[str]]) -> None:
    """Check that each route and parameter in *fixed* exists in the application's router.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError`, which names what exists.
    """
    if not fixed:
        return  # and nothing is asked of a router that may be the application's own
    resources = list(all_resources(app))
    named: dict[str, set[str]] = {}
    for resource in resources:
        if resource.name is not None:
            named.setdefault(resource.name, set()).update(parameter_names(resource))
    existing = set().union(*(parameter_names(resource) for resource in resources))
    for name, parameters in fixed.items():
        setting = f'--fixed-route "{name}={",".join(sorted(parameters))}"'
        if name != ALL and name not in named:
            names = ", ".join(sorted(named)) or "none"
            raise ConfigurationError(
                f'{setting}: the application has no route named "{name}".{did_you_mean(name, named)} '
                f"Named routes: {names}."
            )
        known = existing if name == ALL else named[name]
        where = "the application" if name == ALL else f'the route "{name}"'
        if not known and name != ALL:
            raise ConfigurationError(
                f"{setting}: {where} has no parameters, so there is nothing to fix. Remove the setting."
            )
        for parameter in sorted(set(parameters) - {ALL} - known):
            raise ConfigurationError(
                f'{setting}: {where} has no parameter "{parameter}".{did_you_mean(parameter, known)} '
                f"Its parameters: {', '.join(sorted(known)) or 'none'}."
            )


def all_resources(app: Application) -> Iterator[AbstractResource]:
    """Yield the resources of an application and of the applications below it, in order of registration."""
    for resource in app.router.resources():
        info: Any = resource.get_info()
        below = info.get("app")
        if below is None:
            yield resource
        else:
            yield from all_resources(below)
