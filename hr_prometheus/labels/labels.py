"""From a request to the labels it is recorded under: ``(method, path)``, or ``(method, path, host)`` in a domain.

The route label (the value of ``path``) of a route with parameters is the concrete path, so that
``direction=north`` can be told from ``direction=south``. What keeps that bounded is here: fixed parameters,
which appear as ``{name}``, as values do that may be secret; lists of allowed values; and the budget, the number of distinct
labels that a route may have before further ones are folded into the route's template. ``host`` is what the application was
added by with ``add_domain``, never what a client sends.
"""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aiohttp import hdrs
from aiohttp.web import HTTPException, HTTPMethodNotAllowed, UrlDispatcher

from hr_prometheus.labels.budget import MALFORMED, UNKNOWN, UNMATCHED, LabelRule
from hr_prometheus.labels.policies import DEFAULT_PATH_BUDGET, Policies
from hr_prometheus.labels.resources import domains, path_format, template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aiohttp.web import AbstractResource, AbstractRoute, Application, Request

__all__ = ["MALFORMED", "UNKNOWN", "UNMATCHED", "Labels", "Varying"]

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

    *make* is called once for each new ``(method, path)``, or ``(method, path, host)``; what it returns is what :meth:`find` finds for
    the requests with these labels. *policies* are those of the routes' parameters, and *path_budget* is the number
    of distinct path labels a route may have. Requests whose path label matches one of the shell patterns in
    *exclude* have no labels. *folded* is called with the route's template for each folded request.
    """

    def __init__(
        self,
        make: Callable[[tuple[str, ...]], T],
        *,
        policies: Policies | None = None,
        path_budget: int = DEFAULT_PATH_BUDGET,
        exclude: Iterable[str] = (),
        folded: Callable[[str], None] = lambda _template: None,
    ) -> None:
        self.make = make
        self.policies = policies or Policies({}, {})
        self.path_budget = path_budget
        self.folded = folded
        patterns = "|".join(translate(pattern) for pattern in exclude)
        self._excluded = re.compile(patterns).match if patterns else None
        #: For those in a hurry, by route, if it has one method: what :meth:`find` finds, or how to find it.
        self.known: dict[AbstractRoute, T | Varying[T] | None] = {}
        #: What to return at a glance when a budget is spent, by route and method: it, and the rule by which.
        self._folding: dict[AbstractRoute, dict[str, tuple[T, LabelRule[T]]]] = {}
        self._rules: dict[AbstractRoute, LabelRule[T]] = {}
        self._patterns: dict[AbstractResource, LabelRule[T]] = {}
        self._unrouted: dict[tuple[str, str], LabelRule[T]] = {}
        self._domains: dict[Application, str] = {}

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
                return self.find_unmatched(request)
            rule = self._rules[route] = self._rule(route, request)
            if route.method == request.method != hdrs.METH_ANY:  # "*" is a token too
                if rule.is_constant:
                    self.known[route] = rule.find(request)
                elif rule.values_of is not None:
                    self.known[route] = Varying(rule.known(route.method), None if rule.is_whole else rule.values_of)
        return rule.find(request)

    def fold(self, request: Request, made: T, rule: LabelRule[T]) -> None:
        """Have *made* found from now on for paths that have no place among the *rule*'s, of requests like this."""
        if self._excluded is None:
            self._folding.setdefault(request.match_info.route, {})[request.method] = made, rule

    def excluded(self, label: str) -> bool:
        """Whether requests with this path label are left out."""
        return self._excluded is not None and self._excluded(label) is not None

    def _rule(self, route: AbstractRoute, request: Request) -> LabelRule[T]:
        resource = route.resource
        if resource is None:
            return LabelRule(self, UNMATCHED)
        # The budget is that of the pattern, whatever the method.
        if resource not in self._patterns:
            self._patterns[resource] = self._pattern_rule(resource, self._host(request))
        return self._patterns[resource]

    def find_unmatched(self, request: Request) -> T | None:
        """Return what was made for the labels of a request that no route matches, or none with its method."""
        return self._unrouted_rule(request).find(request)

    def _unrouted_rule(self, request: Request) -> LabelRule[T]:
        asked_for = _asked_for(request) if request.method == hdrs.METH_OPTIONS else None
        key = UNMATCHED if asked_for is None else template(asked_for), self._host(request)
        if key not in self._unrouted:
            self._unrouted[key] = LabelRule(self, key[0], host=key[1])
        return self._unrouted[key]

    def _host(self, request: Request) -> str:
        """Return the domain by which the application was added that has matched a request; empty without one."""
        apps = request.match_info.apps
        if not isinstance(apps, tuple) or len(apps) < 2:  # a unit test's stand-in; an application by itself
            return ""
        if apps[0] not in self._domains:
            self._domains |= {apps[0]: "", **domains(apps[0])}
        return self._domains.get(apps[-1], "")

    def _pattern_rule(self, resource: AbstractResource, host: str) -> LabelRule[T]:
        if not isinstance(resource.canonical, str):
            # No resource of aiohttp's but a unit test's stand-in, of which only the request's path is known.
            return LabelRule(self, UNMATCHED, kept=("path",))
        fixed, allowed = self.policies.of(resource)
        text, kept = path_format(resource, fixed)
        is_whole = not fixed and not allowed
        return LabelRule(
            self,
            template(resource),
            host=host,
            resource=resource,
            form=text,
            kept=kept,
            whole=is_whole,
            allowed=allowed,
        )


def _asked_for(request: Request) -> AbstractResource | None:
    """Return the resource that a preflight asks about: that of the same request with the method which it announces.

    Without a route for OPTIONS it has none of its own, but a middleware of the application's may answer it.
    """
    method = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
    if not (method and isinstance(request.match_info.http_exception, HTTPMethodNotAllowed)):
        return None
    try:
        router = request.match_info.apps[0].router
        if not isinstance(router, UrlDispatcher):
            return None
        resolving = router.resolve(request.clone(method=method))
        try:
            resolving.send(None)
        except StopIteration as resolved:  # at once, unless a rule of the application's own waits
            return resolved.value.route.resource  # type: ignore[no-any-return]
        finally:
            resolving.close()
    except Exception:  # noqa: BLE001  # a request that was read cannot be cloned, a rule may be anything, a test may use stand-ins
        return None
    return None
