"""From a request to the labels ``(method, path)`` it is recorded under.

The route label (the value of ``path``) of a route with parameters is the concrete path, so that
``direction=north`` can be told from ``direction=south``. What keeps that bounded is here: fixed parameters,
which appear as ``{name}``, as values do that may be secret; lists of allowed values; and the budget, the number of distinct
labels that a route may have before further ones are folded into the route's template.
"""

from __future__ import annotations

import logging
import re
from fnmatch import translate
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aiohttp import hdrs
from aiohttp.web import HTTPException

from hr_prometheus.policies import ALL, DEFAULT_PATH_BUDGET, OTHER, Policies, safety_of
from hr_prometheus.resources import path_format, template, valid_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from aiohttp.web import AbstractResource, AbstractRoute, Request

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

T = TypeVar("T")


class Varying(Generic[T]):
    """What was *made* for a route's many labels, by the values which *values_of* gets from a match.

    If there is no such function, it is by the path, with the escapes that aiohttp keeps to tell a ``/`` from a part of a name.
    """

    __slots__ = ("made", "values_of")

    def __init__(self, made: dict[object, T], values_of: Callable[[Mapping[str, str]], object] | None) -> None:
        self.made = made
        self.values_of = values_of


class Labels(Generic[T]):
    """What a middleware knows of labels: the rules of one application and what was made for the labels so far.

    *make* is called once for each new pair ``(method, path)``; what it returns is what :meth:`find` finds for
    the requests with these labels. *policies* are those of the routes' parameters, and *path_budget* is the number
    of distinct path labels a route may have. Requests whose path label matches one of the shell patterns in
    *exclude* have no labels. *folded* is called with the route's template for each folded request.
    *applies* says of the first request of a route whether those of that route are ours to record.
    """

    def __init__(
        self,
        make: Callable[[tuple[str, str]], T],
        *,
        policies: Policies | None = None,
        path_budget: int = DEFAULT_PATH_BUDGET,
        exclude: Iterable[str] = (),
        folded: Callable[[str], None] = lambda _template: None,
        applies: Callable[[Request], bool] = lambda _request: True,
    ) -> None:
        self.make = make
        self.policies = policies or Policies({}, {})
        self.path_budget = path_budget
        self.folded = folded
        patterns = "|".join(translate(pattern) for pattern in exclude)
        self._excluded = re.compile(patterns).match if patterns else None
        self._applies = applies
        #: Whether :attr:`known` is filled.
        self.is_quick = True
        #: For those in a hurry, by route, if it has one method: what :meth:`find` finds, or how to find it.
        self.known: dict[AbstractRoute, T | Varying[T] | None] = {}
        #: What to return at a glance when a budget is spent, by route and method: it, and the rule by which.
        self._folding: dict[AbstractRoute, dict[str, tuple[T, _Rule[T]]]] = {}
        self._rules: dict[AbstractRoute, _Rule[T]] = {}
        self._patterns: dict[AbstractResource, _Rule[T]] = {}
        self._unmatched = _Rule(self, UNMATCHED)

    def lookup(self, request: Request) -> T | None:
        """Return what :meth:`find` has found for the same labels before, if that can be seen at a glance, else ``None``."""
        try:
            match_info = request.match_info
            known: Any = self.known[match_info.route]
            if type(known) is Varying:
                values_of = known.values_of
                known = known.made.get(values_of(match_info) if values_of else request.rel_url.path_safe)
        except (KeyError, TypeError, AttributeError):  # the match may have been changed
            return None
        return known  # type: ignore[no-any-return]

    def find(self, request: Request) -> T | None:
        """Return what was made for the labels of *request*, or ``None`` if it is not to be recorded."""
        match_info = request.match_info
        route = match_info.route
        folding = self._folding.get(route)
        if folding is not None and (folded := folding.get(request.method)) is not None:
            made, by = folded
            path = request.path
            if path not in by.admitted and (
                by.is_safe(by.values_of(match_info)) if by.is_safe else path.isascii() and "%" not in path
            ):  # most are
                self.folded(by.template or UNMATCHED)
                return made
        rule = self._rules.get(route)
        if rule is None:
            if isinstance(match_info.http_exception, HTTPException):
                # Each such match has a route of its own, so nothing may be kept of it.
                return self._unmatched.find(request) if self._applies(request) else None
            rule = self._rules[route] = self._rule(route, request)
            if self.is_quick and route.method == request.method != hdrs.METH_ANY:  # "*" is a token too
                if rule.is_constant:
                    self.known[route] = rule.find(request)
                elif rule.values_of is not None:
                    self.known[route] = Varying(rule.known(route.method), None if rule.is_whole else rule.values_of)
        return rule.find(request)

    def forget(self, request: Request) -> None:
        """Find out anew about the route of *request* when it is asked for again."""
        route = request.match_info.route
        self._folding.pop(route, None)
        self._rules.pop(route, None)
        self.known.pop(route, None)

    def slow_down(self) -> None:
        """Leave :attr:`known` empty from now on."""
        self.is_quick = False
        self.known.clear()

    def fold(self, request: Request, made: T, rule: _Rule[T]) -> None:
        """Have *made* found from now on for paths that have no place among the *rule*'s, of requests like this."""
        if self._excluded is None:
            self._folding.setdefault(request.match_info.route, {})[request.method] = made, rule

    def excluded(self, label: str) -> bool:
        """Whether requests with this path label are left out."""
        return self._excluded is not None and self._excluded(label) is not None

    def _rule(self, route: AbstractRoute, request: Request) -> _Rule[T]:
        if not self._applies(request):
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
        fixed, allowed = self.policies.of(resource)
        text, kept = path_format(resource, fixed)
        is_whole = not fixed and not allowed
        return _Rule(self, template(resource), resource=resource, form=text, kept=kept, whole=is_whole, allowed=allowed)


class _Rule(Generic[T]):
    """The labels of one route pattern: a fixed text, or one filled in from each request."""

    __slots__ = (
        "_allowed",
        "_form",
        "_has_folded",
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
        labels: Labels[T],
        template: str | None,
        *,
        resource: AbstractResource | None = None,
        form: str = "%s",
        kept: tuple[str, ...] = (),
        whole: bool = True,
        allowed: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._labels = labels
        self.template = template
        self._resource = resource
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
            return self._labels.make((method, label))
        if method not in self._of_template:
            self._of_template[method] = self._labels.make((method, label))
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
                "(as a library: fixed_routes_parameters={%r: [%r]}); for more labels: --path-budget.",
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
