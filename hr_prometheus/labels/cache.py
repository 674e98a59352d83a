"""From a request to the record of its labels: ``(method, path)``, or ``(method, path, "host", host)`` in a domain.

The route label (the value of ``path``) of a route with parameters is the concrete path, so that
``direction=north`` and ``direction=south`` stay apart. This package keeps the labels bounded. Fixed parameters appear as
``{name}``, as values do that may be secret. Lists allow some values. The budget is the number of distinct labels that a route
may have before further ones are folded into its template. ``host`` is the domain of the application, the argument of
``add_domain``, never a client's ``Host``.
"""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aiohttp import hdrs
from aiohttp.web import HTTPException

from hr_prometheus.labels.extra import ExtraLabels
from hr_prometheus.labels.fold import PathBudget
from hr_prometheus.labels.methods import METHODS, custom_method_label, lacks_method
from hr_prometheus.labels.policies import ALL, DEFAULT_PATH_BUDGET, Policies
from hr_prometheus.labels.preflight import resource_of_preflight
from hr_prometheus.labels.resources import UNMATCHED, domains, template, valid_text
from hr_prometheus.labels.rule import LabelRule
from hr_prometheus.labels.unrecorded import is_recorded
from hr_prometheus.metrics import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from aiohttp.web import AbstractResource, AbstractRoute, Application, Request

T = TypeVar("T")


class RecordsByValue(dict[Any, T]):
    """The records of a route and method with many labels, by the values that *values_of* gets from a match.

    Without that function the key is the path. aiohttp keeps the escapes in it that tell a ``/`` in a value from a separator.
    *fold* is what further paths are folded into, once the route's budget is spent.
    """

    __slots__ = ("fold", "values_of")

    def __init__(self, values_of: Callable[[Mapping[str, str]], object] | None) -> None:
        super().__init__()
        self.values_of = values_of
        self.fold: Fold[T] | None = None


class Fold(Generic[T]):
    """The *record* of a route whose budget is spent, the *labels* that have their own, and what *count*s folded requests."""

    __slots__ = ("_count", "_labels", "_record", "_rule")

    def __init__(self, record: T, rule: LabelRule, labels: set[str], count: Callable[[], object]) -> None:
        self._record = record
        self._rule = rule
        self._labels = labels
        self._count = count

    def record_of(self, path: str, match_info: Mapping[str, str]) -> T | None:
        """Return the record of a request, and count it, if its values may all appear and its path has no place."""
        if path in self._labels or "%" in path:
            return None
        rule = self._rule
        if not (rule.is_safe(rule.values_of(match_info)) if rule.is_safe else path.isascii()):
            return None
        self._count()
        return self._record


class LabelCache(Generic[T]):
    """The records of an application's requests, by their labels.

    *make_record* is called once for each new ``(method, path)``, or ``(method, path, "host", host)``, with the name of the route
    if it has one. Those of the *extra* labels
    that all requests of a route and method share come behind these. *policies* are those of the routes' parameters, and
    *path_budget* is the number of distinct path labels a route may have. Requests whose path label matches one of the shell
    patterns in *exclude*, or whose method is in *exclude_methods*, have no record. *fold_counter* is called with the
    template of a route whose budget is spent, and returns what to call for each folded request.
    """

    def __init__(
        self,
        make_record: Callable[[tuple[str, ...], str | None], T],
        *,
        policies: Policies | None = None,
        path_budget: int = DEFAULT_PATH_BUDGET,
        exclude: Iterable[str] = (),
        exclude_methods: Collection[str] = (),
        fold_counter: Callable[[str], Callable[[], object]] = lambda _template: lambda: None,
        extra: ExtraLabels | None = None,
    ) -> None:
        self.make_record = make_record
        self.policies = policies or Policies({}, {})
        self.path_budget = path_budget
        self.fold_counter = fold_counter
        self.extra = extra or ExtraLabels({})
        patterns = "|".join(translate(pattern) for pattern in exclude)
        self.excluded = re.compile(patterns).match if patterns else None
        self._excluded_methods = frozenset(exclude_methods)
        #: By route: its only record, the records of its only method, or those of all its methods; ``None`` where no look-up helps.
        self._by_route: dict[AbstractRoute, T | RecordsByValue[T] | PatternRecords[T] | None] = {}
        self._routes: dict[AbstractRoute, PatternRecords[T]] = {}
        self._patterns: dict[AbstractResource, PatternRecords[T]] = {}
        self._unmatched: dict[tuple[str, str], PatternRecords[T]] = {}
        self._domains: dict[Application, str] = {}

    def lookup(self, request: Request) -> T | None:
        """Return the record of *request* if one or two look-ups are enough, else ``None``. Raises nothing.

        It may be ``None`` for a request that has a record, which :meth:`record_of` returns.
        """
        try:
            match_info = request.match_info
            records: Any = self._by_route[match_info.route]
            if type(records) is not RecordsByValue:
                if type(records) is not PatternRecords:
                    return records  # type: ignore[no-any-return]
                records = records.by_method[request.method]
            values_of = records.values_of
            key: Any = values_of(match_info) if values_of else request.rel_url.path_safe
            record: T | None = records.get(key)
            if record is None and records.fold is not None:
                record = records.fold.record_of(key, match_info)
        except (KeyError, TypeError, AttributeError):  # the application may have changed the match
            return None
        return record

    def record_of(self, request: Request) -> T | None:
        """Return the record of *request*, which is made if there is none; ``None`` if the request is left out."""
        if request.method in self._excluded_methods:
            return None
        match_info = request.match_info
        route = match_info.route
        pattern = self._routes.get(route)
        if pattern is None:
            if isinstance(match_info.http_exception, HTTPException):
                # Each such match has a route of its own, which may not be kept.
                return self.unmatched_record(request)
            if not is_recorded(route.handler):
                return None
            pattern = self._routes[route] = self._pattern(route, request)
            self._by_route[route] = None
            is_single = route.method == request.method != hdrs.METH_ANY  # a client may send the method "*"
            if pattern.rule.values_of is not None:
                self._by_route[route] = pattern.of_method(route.method) if is_single else pattern
            elif is_single and not pattern.rule.kept:
                self._by_route[route] = pattern.record_of(request)
        return pattern.record_of(request)

    def unmatched_record(self, request: Request) -> T | None:
        """Return the record of a request that no route matches, or no route with its method."""
        resource = resource_of_preflight(request) if request.method == hdrs.METH_OPTIONS else None
        key = UNMATCHED if resource is None else template(resource), self._host(request)
        if key not in self._unmatched:
            name = None if resource is None else resource.name
            extra = self.extra.of_route(None, resource)
            self._unmatched[key] = PatternRecords(self, LabelRule(key[0]), host=key[1], name=name, extra=extra)
        return self._unmatched[key].record_of(request)

    def excludes(self, label: str) -> bool:
        """Whether requests with this path label are left out."""
        return self.excluded is not None and self.excluded(label) is not None

    def _pattern(self, route: AbstractRoute, request: Request) -> PatternRecords[T]:
        resource = route.resource
        if resource is None:
            return PatternRecords(self, LabelRule(UNMATCHED))
        # All methods of a pattern share its budget.
        if resource not in self._patterns:
            rule = LabelRule.of(resource, self.policies)
            self._patterns[resource] = PatternRecords(self, rule, host=self._host(request), name=resource.name)
        return self._patterns[resource]

    def _host(self, request: Request) -> str:
        """Return the domain of the application that has matched a request, or an empty text."""
        apps = request.match_info.apps
        if HOST in self.extra.varying:  # which names the hosts itself
            return ""
        if not isinstance(apps, tuple) or len(apps) < 2:  # a unit test's stand-in, or an application by itself
            return ""
        if apps[0] not in self._domains:
            self._domains |= {apps[0]: "", **domains(apps[0])}
        return self._domains.get(apps[-1], "")


class PatternRecords(Generic[T]):
    """The records of one route pattern, by method and by the key of its *rule*. *host* is the domain of its application.

    *extra* are the labels that all its requests share, if those do not follow from what a request has matched.
    """

    __slots__ = (
        "_cache", "_extra", "_host", "_is_template_excluded", "_key", "_name", "_of_template", "budget", "by_method", "rule",
    )  # fmt: skip

    def __init__(
        self,
        cache: LabelCache[T],
        rule: LabelRule,
        *,
        host: str = "",
        name: str | None = None,
        extra: tuple[str, ...] | None = None,
    ) -> None:
        self._cache = cache
        self._extra = extra
        self.rule = rule
        self._key = rule.key if rule.kept else None
        self._host = (HOST, host) if host else ()
        parameter = rule.kept[0] if rule.kept else ALL
        self._name = name if isinstance(name, str) else None  # of a unit test's stand-in
        named = self._name or ALL
        self.budget = PathBudget(
            cache.path_budget, host, rule.template, cache.fold_counter, name=named, parameter=parameter
        )
        self.by_method: dict[str, RecordsByValue[T]] = {}
        self._of_template: dict[str, T] = {}
        self._is_template_excluded = cache.excludes(rule.template)

    def of_method(self, method: str) -> RecordsByValue[T]:
        """Return the records of the requests with this method, by key."""
        if method not in self.by_method:
            self.by_method[method] = RecordsByValue(None if self.rule.is_whole else self.rule.values_of)
        return self.by_method[method]

    def record_of(self, request: Request) -> T | None:
        """Return the record of *request*, which is made if there is none; ``None`` if the request is left out."""
        key = self._key(request) if self._key else None
        records = self.by_method.get(request.method)
        record = None if records is None else records.get(key)
        if record is not None:
            return record
        return self._new_record(request, key, is_first=not records)

    def _new_record(self, request: Request, key: object, *, is_first: bool) -> T | None:
        """Make the record of a request with a new key. *is_first*: no request with this method has a record yet."""
        rule, method = self.rule, request.method
        if method not in METHODS:
            method = custom_method_label(request)
            record = self.of_method(method).get(key)
            if record is not None:
                return record
        if is_first and rule.template != UNMATCHED and lacks_method(request):
            return self._cache.unmatched_record(request)
        path = rule.path(request, key) if rule.kept else rule.template
        label = valid_text(path)
        if self._cache.excludes(label):
            return None
        has_place = rule.is_bounded or label == rule.template or label in self.budget.labels
        if not (has_place or self.budget.admit(label)):
            return self._fold(request, method)
        record = self._make(method, label, request)
        records = self.of_method(method)
        # There is no end of texts that are cut or escaped, and many values can make one path.
        if label == path and (rule.is_bounded or len(records) <= self._cache.path_budget):
            records[label if key == label else key] = record  # so that equal texts are kept once
        return record

    def _fold(self, request: Request, method: str) -> T | None:
        if self._is_template_excluded:
            return None
        count = self.budget.fold()
        record = self._make(method, self.rule.template, request)
        records = self.of_method(method)
        is_final = self.budget.is_spent and self._cache.excluded is None
        if (
            records.fold is None and is_final and self.rule.is_whole and method == request.method
        ):  # there is no end of others
            records.fold = Fold(record, self.rule, self.budget.labels, count)
        return record

    def _make(self, method: str, label: str, request: Request) -> T:
        is_template = label == self.rule.template
        if is_template and method in self._of_template:
            return self._of_template[method]
        extra = self._extra
        if extra is None:
            extra = self._cache.extra.shared_by(request) if self._cache.extra else ()
        record = self._cache.make_record((method, label, *self._host, *extra), self._name)
        if is_template:
            self._of_template[method] = record
        return record
