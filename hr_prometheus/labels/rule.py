"""How the path label of a route pattern is written: a fixed text, or one that is filled in from each request."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from hr_prometheus.labels.policies import OTHER, safety_of
from hr_prometheus.labels.resources import UNMATCHED, path_format, template

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from aiohttp.web import AbstractResource, Request

    from hr_prometheus.labels.policies import Policies


class LabelRule:
    """The path label of one route pattern.

    *template* is the label without values. *form* has a ``%s`` for the value of each parameter that is *kept*; *values_of*
    gets them from a match. *allowed* are the only values that appear of some parameters.
    """

    __slots__ = (
        "_allowed",
        "_form",
        "_is_safe_value",
        "_names",
        "is_bounded",
        "is_safe",
        "is_whole",
        "kept",
        "template",
        "values_of",
    )

    def __init__(
        self,
        template: str,
        form: str = "%s",
        kept: tuple[str, ...] = (),
        *,
        values_of: Callable[[Mapping[str, str]], object] | None = None,
        allowed: Mapping[str, Collection[str]] | None = None,
        is_whole: bool = True,
        keeps_all: bool = False,
    ) -> None:
        self.template = template
        self._form = form
        #: The parameters whose values appear in the label. Without any the label is the template.
        self.kept = kept
        #: Gets the kept values from a match: one value, or a tuple. Without it the label is the path.
        self.values_of: Any = values_of
        self._allowed = allowed or {}
        #: Whether all parameters are kept, so that the label is the path itself if all its values may appear.
        self.is_whole = is_whole
        #: Whether lists of allowed values bound the number of labels.
        self.is_bounded = bool(kept) and all(name in self._allowed for name in kept)
        #: Says whether all kept values may appear; ``None``: any may.
        self.is_safe = safety_of(len(kept)) if values_of is not None and not keeps_all else None
        self._is_safe_value = safety_of(1) if self.is_safe else None
        self._names = [f"{{{name}}}" for name in kept]  # they take the place of values that may not appear

    @classmethod
    def of(cls, resource: AbstractResource, policies: Policies) -> LabelRule:
        """Return the rule of a resource whose parameters have these policies."""
        if not isinstance(resource.canonical, str):
            # A unit test's stand-in for a resource. Only the request's path is known.
            return cls(UNMATCHED, kept=("path",))
        fixed, allowed = policies.of(resource)
        form, kept = path_format(resource, fixed)
        return cls(
            template(resource),
            form,
            kept,
            values_of=itemgetter(*kept) if kept else None,
            allowed=allowed,
            is_whole=not fixed and not allowed,
            keeps_all=policies.keeps_all,
        )

    def key(self, request: Request) -> object:
        """Return the key of a request, which determines its label: its path, or the values as they appear in the label."""
        values: Any = self.values_of(request.match_info) if self.values_of else None
        is_safe = self._is_safe_value
        if self._allowed:
            values = self._limited(values)
        elif is_safe is not None:
            if len(self.kept) == 1:
                safe = values if is_safe(values) else self._names[0]
            else:
                safe = tuple([value if is_safe(value) else name for value, name in zip(values, self._names)])  # noqa: B905  # as many
            if safe != values:
                return safe
        if self.is_whole:
            # A path that was sent without escapes is its own key. A tuple tells others from it.
            return (request.path,) if "%" in request.path else request.path
        return values

    def path(self, request: Request, key: Any) -> str:
        """Return the path for the label of a request that has this *key*."""
        if self.is_whole and key in (request.path, (request.path,)):
            return request.path
        path: str = self._form % key  # one value, or a tuple
        return path

    def _limited(self, values: Any) -> Any:
        """Return values as they appear if some parameters have a list of allowed values."""
        if len(self.kept) > 1:
            return tuple(map(self._limited_value, self.kept, self._names, values))
        return self._limited_value(self.kept[0], self._names[0], values)

    def _limited_value(self, parameter: str, name: str, value: str) -> str:
        if parameter in self._allowed:
            return value if value in self._allowed[parameter] else OTHER
        return value if self._is_safe_value is None or self._is_safe_value(value) else name
