"""Extra labels of the request metrics, which the settings name: constants, the handler, values that requests carry.

What a client chooses has a list of the values that are kept, so that the number of series stays bounded. Any other value
is ``other``, and a request without one has ``none``.
"""

from __future__ import annotations

import inspect
import os
import re
from asyncio import CancelledError
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from hr_prometheus.errors import ConfigurationError, SettingError, did_you_mean
from hr_prometheus.labels.policies import OTHER
from hr_prometheus.labels.resources import UNMATCHED, valid_text
from hr_prometheus.metrics import BASIC_METRICS, FULL_METRICS, HOST, SPLITTING_LABELS
from hr_prometheus.names import DEFAULT_NAMES, NAME_SETS, checked_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from aiohttp.web import AbstractResource, Request

    #: Returns the value that a request has for a label, or ``None``.
    RequestValue: TypeAlias = Callable[[Request], object]

#: The value for a request that has none.
NONE = "none"

_HANDLER, _ROUTE, _CONST, _ENV, _HEADER, _QUERY, _MATCH, _COOKIE = _SOURCES = (
    "handler", "route", "const", "env", "header", "query", "match", "cookie",
)  # fmt: skip
#: The sources that clients fill, with an example of a name in each.
_EXAMPLES = {_HEADER: "X-Client", _QUERY: "kind", _MATCH: "direction", _COOKIE: "plan", HOST: ""}
#: Names that the request metrics have already, or that a scrape adds.
_TAKEN = SPLITTING_LABELS.union(
    *(metric.labels for metric in BASIC_METRICS + FULL_METRICS), {"le", "worker", "quantile"}
)


class Label:
    """An extra label whose value a *function* takes from each request.

    The function is called in the event loop before the handler, and must be quick. It returns one of the *allowed* texts, or
    ``None`` for ``none``. Anything else is ``other``, and so is the value if it raises, which is counted as
    ``hr_prometheus_errors_total{where="label"}``.

    ::

        def tenant(request):
            return request.path.split("/")[1]

        instrument(app, extra_labels={"tenant": Label(tenant, allowed=["acme", "umbrella"])})
    """

    def __init__(self, function: RequestValue, allowed: Collection[str]) -> None:
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"the function of a label is {function!r}. Expected a function, not a coroutine, that takes a request."
            )
        is_list = not isinstance(allowed, str | Mapping) and isinstance(allowed, Collection)
        if not is_list or not allowed or not all(isinstance(value, str) for value in allowed):
            raise ConfigurationError(
                f"the allowed values of a label are {allowed!r}. Expected a list of texts, for example "
                '["web", "ios"]: without a list the number of series has no bound.'
            )
        self.function = function
        self.allowed = {value: valid_text(value) for value in allowed}

    def reader(self, failed: Callable[[str, BaseException], None]) -> Callable[[Request], str]:
        """Return what reads the value of a request. An error of the function is handed to *failed*."""
        function, allowed = self.function, self.allowed

        def value_of(request: Request) -> str:
            try:
                value: Any = function(request)
                return NONE if value is None else allowed.get(value, OTHER)
            except (Exception, CancelledError) as error:  # noqa: BLE001  # nothing of ours may reach the client
                failed("label", error)
                return OTHER

        return value_of


class ExtraLabels:
    """The extra labels of one application's requests.

    *labels* maps their names to a :class:`Label`, or to a source as ``--label`` has it: ``handler``, ``route``, ``const:VALUE``,
    ``env:VARIABLE``, or ``header:NAME=VALUE,VALUE`` (also ``query``, ``match``, ``cookie``, and ``host:VALUE,VALUE``). None can
    have the name of a label of the metrics under the name sets *names*.
    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for anything else.
    """

    def __init__(self, labels: object, names: Sequence[str] = DEFAULT_NAMES) -> None:
        if not isinstance(labels, Mapping):
            raise ConfigurationError(
                f'extra_labels is {labels!r}. Expected a mapping of names to sources, for example {{"team": "const:shop"}}.'
            )
        #: Those with the same value for all requests.
        self._constants: tuple[str, ...] = ()
        #: Those that follow from the route and the method: their names, and what shows them.
        self._of_route: dict[str, str] = {}
        #: The parameters of routes that are shown, by the names of their labels.
        self.parameters: dict[str, str] = {}
        #: Those that differ from request to request.
        self.varying: dict[str, Label] = {}
        for name, source in labels.items():
            _check_name(name, source, checked_names(names))
            if isinstance(source, Label):
                self.varying[name] = source
            elif isinstance(source, str):
                self._add(name, source)
            else:
                raise _error(name, source, f" is {source!r}. Expected a source, for example const:shop, or a Label.")

    def _add(self, name: str, source: str) -> None:
        kind, _, text = source.partition(":")
        if source in {_HANDLER, _ROUTE}:
            self._of_route[name] = source
        elif kind == _CONST and text:
            self._constants += (name, valid_text(text))
        elif kind == _ENV and text:
            self._constants += (name, valid_text(os.environ.get(text) or NONE))
        elif kind in _EXAMPLES:
            self.varying[name] = _label(name, source)
            if kind == _MATCH:
                self.parameters[name] = text.partition("=")[0]
        else:
            known = (*_SOURCES, HOST)
            hint = "" if kind in known else did_you_mean(kind, known)
            problem = f" is not understood.{hint} Expected handler, route, const:VALUE, env:VARIABLE, or header:X-Client=web,ios; "
            raise _error(
                name, source, problem + "query, match and cookie are like header, and host:a.example is a list alone."
            )

    def __bool__(self) -> bool:
        return bool(self._constants or self._of_route or self.varying)

    def shared_by(self, request: Request) -> tuple[str, ...]:
        """Return the names and values, in turn, of those that all requests with its route and method share."""
        match_info = request.match_info
        return self.of_route(getattr(match_info, "handler", None), match_info.route.resource)

    def of_route(self, handler: object, resource: AbstractResource | None, path: str = UNMATCHED) -> tuple[str, ...]:
        """Return the names and values, in turn, for requests of a route.

        Those of no route have the label *path*, and those that no handler got have none.
        """
        labels = self._constants
        for name, source in self._of_route.items():
            if source == _HANDLER:
                value = NONE if resource is None or handler is None else _name_of(handler)
            else:
                value = path if resource is None else resource.name or resource.canonical
            labels += (name, value)
        return labels

    def without_request(self, path: str) -> tuple[str, ...]:
        """Return the names and values, in turn, for requests that were refused before they could be read."""
        return self.of_route(None, None, path) + tuple(each for name in self.varying for each in (name, NONE))

    @property
    def combinations(self) -> int:
        """How many combinations of values the requests of one route and method can have."""
        number = 1
        for label in self.varying.values():
            number *= len(label.allowed.keys() | {OTHER, NONE})
        return number

    @property
    def longest(self) -> tuple[str, ...]:
        """The names and the longest values, in turn, of those that differ from request to request."""
        return tuple(
            each for name, label in self.varying.items() for each in (name, max([*label.allowed, OTHER], key=len))
        )


def _check_name(name: object, source: object, names: Sequence[str]) -> None:
    taken = _TAKEN.union(*(NAME_SETS[each].labels.values() for each in names))
    if not isinstance(name, str) or not re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) or name.startswith("__"):
        problem = " cannot be the name of a label. Expected letters, digits and underscores, with no digit first."
    elif name in taken or (name == HOST and not str(source).startswith(f"{HOST}:")):
        problem = f": the metrics have a label {name} already. Choose another name."
    else:
        return
    raise _error(name, source, problem)


def _error(name: object, source: object, problem: str) -> SettingError:
    return SettingError("extra_labels", f"extra_labels={ {name: source} }", problem, (str(name),))


def _label(name: str, source: str) -> Label:
    """Return the label of a source that clients fill."""
    kind, _, rest = source.partition(":")
    argument, equals, listed = (HOST, "=", rest) if kind == HOST else rest.partition("=")
    values = [value.strip() for value in listed.split(",")]
    if not argument or not equals or not all(values):
        example = f"{kind}:{argument or _EXAMPLES[kind]}=web,ios" if kind != HOST else "host:a.example,b.example"
        problem = f" has no list of values. Clients choose what they send, so the number of series would have no bound. Expected, for example, {name}={example}."
        raise _error(name, source, problem)
    if kind == HOST:
        return Label(_host, [_without_port(value) for value in values])
    return Label(_GETTERS[kind](argument), values)


def _host(request: Request) -> object:
    host = request.headers.get(HOST)  # aiohttp's own attribute has the machine's name where there is none
    return None if host is None else _without_port(host)


def _without_port(host: str) -> str:
    return host.lower().partition(":")[0]


_GETTERS: dict[str, Callable[[str], RequestValue]] = {
    _HEADER: lambda name: lambda request: request.headers.get(name),
    _QUERY: lambda name: lambda request: request.query.get(name),
    _MATCH: lambda name: lambda request: request.match_info.get(name),
    _COOKIE: lambda name: lambda request: request.cookies.get(name),
}


def _name_of(handler: object) -> str:
    """Return the name of a handler: ``module.function``, or ``module.Class`` of a class-based view."""
    while isinstance(handler, partial):
        handler = handler.func
    name = getattr(handler, "__qualname__", None)
    if not isinstance(name, str):
        handler, name = type(handler), type(handler).__qualname__
    return f"{getattr(handler, '__module__', '')}.{name}"
