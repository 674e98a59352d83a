"""The labels of one route pattern: a fixed text, or one that is filled in from each request within the route's budget."""

from __future__ import annotations

import logging
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aiohttp import hdrs
from aiohttp.web import View

from hr_prometheus.labels.policies import ALL, OTHER, safety_of
from hr_prometheus.labels.resources import valid_text

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Protocol

    from aiohttp.web import AbstractResource, Request

    from hr_prometheus.labels.policies import Policies

    class Owner(Protocol[T]):
        """What a rule knows of the application's labels."""

        make: Callable[[tuple[str, ...]], T]
        policies: Policies
        path_budget: int
        folded: Callable[[str], None]

        def find_unmatched(self, request: Request) -> T | None:
            """Return what was made for the labels of a request that no route matches."""

        def excluded(self, label: str) -> bool:
            """Whether requests with this path label are left out."""

        def fold(self, request: Request, made: T, rule: LabelRule[T]) -> None:
            """Have *made* found from now on for paths that have no place among the *rule*'s."""


logger = logging.getLogger("hr_prometheus")

#: What requests are recorded under that no route matched. It has no leading slash, so it can be no path.
UNMATCHED = "unmatched"
#: What requests are recorded under that the HTTP parser refused before there was a route.
MALFORMED = "malformed"
#: What a method is recorded under that neither the IANA registry nor the application knows.
UNKNOWN = "unknown"

#: The methods that are labels, https://www.iana.org/assignments/http-methods/http-methods.xhtml
METHODS = frozenset(
    "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY "
    "MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT "
    "QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF "
    "VERSION-CONTROL".split()
)


def _lacks_method(request: Request) -> bool:
    """Whether a class-based view will answer 405, because its class does not define the request's method."""
    handler = getattr(request.match_info, "handler", None)
    is_view = isinstance(handler, type) and issubclass(handler, View)
    return is_view and not (request.method in hdrs.METH_ALL and hasattr(handler, request.method.lower()))


class LabelRule(Generic[T]):
    """The labels of one route pattern: a fixed text, or one filled in from each request."""

    __slots__ = (
        "_allowed",
        "_form",
        "_has_folded",
        "_host",
        "_is_bounded",
        "_is_safe_value",
        "_kept",
        "_known",
        "_labels",
        "_names",
        "_of_template",
        "_resource",
        "admitted",
        "is_safe",
        "is_whole",
        "template",
        "values_of",
    )

    def __init__(
        self,
        labels: Owner[T],
        template: str | None,
        *,
        host: str = "",
        resource: AbstractResource | None = None,
        form: str = "%s",
        kept: tuple[str, ...] = (),
        whole: bool = True,
        allowed: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._labels = labels
        self.template = template
        self._resource = resource
        self._host = (host,) if host else ()  # the domain that the route belongs to
        self._form = form
        self._kept = kept  # the parameters whose values appear in the label
        self.is_whole = whole  # whether these are all of them, so that the label is the path as it is, if it may be
        self._allowed = allowed or {}  # the values that appear of a kept parameter, if not all do
        self._is_bounded = bool(kept) and all(name in self._allowed for name in kept)
        #: Gets the kept values from a match.
        self.values_of: Any = itemgetter(*kept) if kept and resource is not None else None
        #: Says whether they all may appear; ``None``: whatever they are.
        self.is_safe = safety_of(len(kept)) if self.values_of and not labels.policies.keeps_all else None
        self._is_safe_value = safety_of(1) if self.is_safe else None
        self._names = [f"{{{name}}}" for name in kept]  # which appear in their stead
        self._known: dict[str, dict[object, T]] = {}
        #: The labels that have a place in the budget.
        self.admitted: set[str] = set()
        self._of_template: dict[str, T] = {}
        self._has_folded = False

    @property
    def is_constant(self) -> bool:
        """Whether all requests with one method have one label."""
        return not self._kept

    def known(self, method: str) -> dict[object, T]:
        """Return what has been made for the labels of requests with this method, by what :class:`Varying` says."""
        return self._known.setdefault(method, {})

    def find(self, request: Request) -> T | None:
        """Return what was made for the labels of *request*, or ``None`` if it is not to be recorded."""
        key = self._key(request) if self._kept else None
        known = self._known.get(request.method)
        found = None if known is None else known.get(key)
        if found is not None:
            return found
        return self._learn(request, key)

    def _learn(self, request: Request, key: object) -> T | None:
        """Make the labels of a request that is the first with this method and this key."""
        if self.template is None:
            return None
        if self.template != UNMATCHED and _lacks_method(request):
            return self._labels.find_unmatched(request)
        method = request.method if request.method in METHODS else self._own_method(request)
        if method == UNKNOWN and key in self.known(UNKNOWN):
            return self.known(UNKNOWN)[key]
        path = self._path(request, key) if self._kept else self.template
        label = valid_text(path)
        if self._labels.excluded(label):
            return None
        if not self._is_bounded and label not in self.admitted and label != self.template:
            if len(self.admitted) >= self._labels.path_budget:
                return self._fold(request, method)
            self.admitted.add(label)
        made = self._make(method, label)
        known = self.known(method)
        # Of the texts that are recorded as another there is no end, and many values can make one path.
        if label == path and (self._is_bounded or len(known) <= self._labels.path_budget):
            known[label if key == label else key] = made  # one text, not two that are the same
        return made

    def _make(self, method: str, label: str) -> T:
        if label != self.template:
            return self._labels.make((method, label, *self._host))
        if method not in self._of_template:
            self._of_template[method] = self._labels.make((method, label, *self._host))
        return self._of_template[method]

    def _path(self, request: Request, key: Any) -> str:
        """Return the path as it is shown by a *key*."""
        if self.is_whole and key in (request.path, (request.path,)):
            return request.path
        path: str = self._form % key  # one value, or a tuple
        return path

    def _key(self, request: Request) -> object:
        """Return what the label follows from: the path, or the values as they appear in it."""
        values: Any = self.values_of(request.match_info) if self.values_of else None
        is_safe = self._is_safe_value
        if self._allowed:
            values = self._shown(values)
        elif is_safe is not None:
            if len(self._kept) == 1:
                shown = values if is_safe(values) else self._names[0]
            else:
                shown = tuple([value if is_safe(value) else name for value, name in zip(values, self._names)])  # noqa: B905  # as many
            if shown != values:
                return shown
        if self.is_whole:
            # A path that was sent without escapes is the same text. Others may look like one that was.
            return (request.path,) if "%" in request.path else request.path
        return values

    def _shown(self, values: Any) -> Any:
        """Return values as they appear, where some are those of a list."""
        if len(self._kept) > 1:
            return tuple(map(self._shown_value, self._kept, self._names, values))
        return self._shown_value(self._kept[0], self._names[0], values)

    def _shown_value(self, parameter: str, name: str, value: str) -> str:
        if parameter in self._allowed:
            return value if value in self._allowed[parameter] else OTHER
        return value if self._is_safe_value is None or self._is_safe_value(value) else name

    @staticmethod
    def _own_method(request: Request) -> str:
        """Return a method of the application's own invention as it is, a client's as ``unknown``."""
        registered = request.match_info.route.method
        return registered if registered == request.method != hdrs.METH_ANY else UNKNOWN

    def _fold(self, request: Request, method: str) -> T | None:
        template = self.template or UNMATCHED
        if self._labels.excluded(template):
            return None
        if not self._has_folded:
            self._has_folded = True
            name = getattr(self._resource, "name", None) or ALL
            some = next(iter(self._kept))
            logger.warning(
                "The route %s has used its budget of %d path labels; further paths are recorded as this template. "
                "To group a parameter's values: --fixed-route %s=%s "
                "(as a library: fixed_routes_parameters={%r: [%r]}); for more labels: --path-budget (as a library: path_budget).",
                template,
                self._labels.path_budget,
                name,
                some,
                name,
                some,
            )
        self._labels.folded(template)
        made = self._make(method, template)
        if self.is_whole and method == request.method:  # of other methods there is no end
            self._labels.fold(request, made, self)
        return made
