"""The policies of route parameters: which of their values appear in labels.

By default a value appears within the route's budget if it is *safe*. Of a *fixed* parameter no value appears, but ``{name}``.
Of a parameter with *allowed* values these appear, and ``other`` for the rest.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from hr_prometheus.errors import ConfigurationError, SettingError, did_you_mean
from hr_prometheus.labels.resources import all_resources, has_start_up, may_match, parameter_names

if TYPE_CHECKING:
    from aiohttp.web import AbstractResource, Application

logger = logging.getLogger("hr_prometheus")

#: The name for every route, or for every parameter of a route.
ALL = "*"
#: Appears in a label for a value that is not in the list of the allowed ones.
OTHER = "other"
#: Distinct path labels that a route may have before further ones are folded.
DEFAULT_PATH_BUDGET = 100
#: The values of other parameters that are kept: those that look neither like a secret nor like a person, or all.
SAFE, EVERY = KEEP_VALUES = ("safe", "all")
# Letters, digits, "-", "_", "." and "~", with fewer than 9 digits; more than 15 only if they are not letters and digits mixed.
# Up to 8 characters are tried first, because their digits need not be counted.
_SAFE_VALUE = r"(?:[\w.~-]{0,8}|(?!(?:[^/\d]*\d){9})(?:[\w.~-]{0,15}|[A-Za-z_.~-]{16,32}|[\d_.~-]{16,32}))"


class Policies:
    """The policies of one application's parameters.

    *fixed* is ``{route name: [parameter, …]}`` and *allowed* ``{route name: {parameter: [value, …]}}``; ``*`` stands
    for every route and, in *fixed*, for every parameter. A policy that names a route and its parameter wins over a star.
    *keep_values* is ``safe`` or ``all``: which values of other parameters are kept. *routes_with_buckets* are names of routes,
    and *label_parameters* maps extra labels to the parameters that they show; both are only checked.
    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for other shapes and for contradictions.
    """

    def __init__(
        self,
        fixed: object,
        allowed: object,
        keep_values: str = SAFE,
        *,
        routes_with_buckets: Collection[str] = (),
        label_parameters: Mapping[str, str] | None = None,
    ) -> None:
        if keep_values not in KEEP_VALUES:
            raise ConfigurationError(f'unknown keep_values: {keep_values!r}. Expected "safe" or "all".')
        self.keeps_all = keep_values == EVERY
        #: Called with an error that is only a warning; a command logs it in words of its own.
        self.warn: Callable[[ConfigurationError], None] = lambda error: logger.warning("%s", error)
        #: Whether other applications have the same policies, so that what this one lacks may be another's.
        self.is_shared = False
        self.fixed = fixed_parameters(fixed or {})
        self.allowed = allowed_values(allowed or {})
        self._routes_with_buckets = tuple(routes_with_buckets)
        self._label_parameters = label_parameters or {}
        for name, parameters in self.allowed.items():
            for parameter in parameters:
                if parameter in self.fixed.get(name, frozenset()):
                    raise SettingError(
                        "allow_values",
                        "allow_values",
                        f': the parameter "{parameter}" of the route "{name}" is fixed and has allowed values as well.',
                        (name, parameter),
                        " Remove it there or from {}.",
                        contradicts="fixed_routes_parameters",
                    )

    def of(self, resource: AbstractResource) -> tuple[frozenset[str], dict[str, frozenset[str]]]:
        """Return the fixed parameters of a resource, and the allowed values of others."""
        names = (ALL, resource.name or "")
        parameters = parameter_names(resource)
        named = self.fixed.get(resource.name or "", frozenset())
        allowed = {
            parameter: values
            for name in names
            for parameter, values in self.allowed.get(name, {}).items()
            if parameter in parameters and not (name == ALL and parameter in named)
        }
        fixed = frozenset().union(*(self.fixed.get(name, frozenset()) for name in names))
        if ALL in fixed:
            fixed = parameters
        return (fixed & parameters) - allowed.keys(), allowed

    def kept(self, resource: AbstractResource, path_budget: int) -> frozenset[str]:
        """Return the parameters of a resource whose safe values labels may show: none without a budget."""
        fixed, allowed = self.of(resource)
        return parameter_names(resource) - fixed - allowed.keys() if path_budget else frozenset()

    def check(self, app: Application, *, leniently: bool = False) -> None:
        """Check that each route and parameter exists in the application's router, and that each value can occur.

        Raises :exc:`~hr_prometheus.errors.ConfigurationError`, with the names that exist. *leniently*: it is a warning if
        the application has a start-up, which may add routes. Shared policies are left to :meth:`check_together`.
        """
        if self.is_shared:
            return
        try:
            self.check_together([app])
        except ConfigurationError as error:
            if not (leniently and has_start_up(app)):
                raise
            self.warn(error)

    def check_together(self, apps: Sequence[Application]) -> None:
        """Check that each route and parameter exists in one of the applications, and that each value can occur there."""
        if not (self.fixed or self.allowed or self._routes_with_buckets or self._label_parameters):
            return  # also with a router of the application's own, which has no list of routes
        resources = [resource for app in apps for resource in all_resources(app)]
        lacks = "the application has no" if len(apps) == 1 else f"none of the {len(apps)} applications has a"
        for name, fixed in self.fixed.items():
            subject = f"fixed_routes_parameters={ ({name: sorted(fixed)}) }"
            _check_names("fixed_routes_parameters", subject, name, fixed - {ALL}, resources, lacks=lacks)
        for name, allowed in self.allowed.items():
            for parameter, values in allowed.items():
                subject = f"allow_values={ ({name: {parameter: sorted(values)}}) }"
                _check_names("allow_values", subject, name, {parameter}, resources, lacks=lacks)
                _check_values(subject, name, parameter, values, resources)
        for name in self._routes_with_buckets:
            _check_route("buckets", f"buckets={ ({name: ...}) }", name, parameters_by_route(resources), lacks=lacks)
        for label, parameter in self._label_parameters.items():
            subject = f"extra_labels={ ({label: f'match:{parameter}'}) }"
            existing = parameters_by_route(resources).get(ALL, set())
            _check_parameters("extra_labels", subject, (label,), {parameter}, existing, lacks=lacks)


def parameters_by_route(resources: Sequence[AbstractResource]) -> dict[str, set[str]]:
    """Return the parameters of each named route, and under ``*`` those of all."""
    named: dict[str, set[str]] = {}
    for resource in resources:
        named.setdefault(ALL, set()).update(parameter_names(resource))
        if resource.name is not None:
            named.setdefault(resource.name, set()).update(parameter_names(resource))
    return named


@cache
def safety_of(number: int) -> Callable[[Any], object]:
    """Return a function that says whether values are safe: of one value, or of a tuple with that *number* of them.

    A safe value has at most 32 characters, each a letter, a digit, ``-``, ``_``, ``.`` or ``~`` of ASCII, and at most 8 digits.
    With 16 characters or more it has no letter or no digit. So e-mail addresses, telephone numbers, UUIDs and tokens are
    not safe.
    """
    match = re.compile("/".join([_SAFE_VALUE] * number), re.ASCII).fullmatch
    return match if number == 1 else lambda values: match("/".join(values))


def _check_names(
    setting: str, subject: str, name: str, parameters: Collection[str], resources: list[AbstractResource], *, lacks: str
) -> None:
    named = parameters_by_route(resources)
    if name != ALL:
        _check_route(setting, subject, name, named, lacks=lacks)
    existing = named.get(name, set())
    if not existing and name != ALL:
        problem = f': the route "{name}" has no parameters, so the setting has no effect. Remove it.'
        raise SettingError(setting, subject, problem, (name,))
    if name != ALL:
        lacks = f'the route "{name}" has no'
    _check_parameters(setting, subject, (name,), parameters, existing, lacks=lacks)


def _check_route(setting: str, subject: str, name: str, named: Mapping[str, Collection[str]], *, lacks: str) -> None:
    if name not in named:
        names = sorted(named.keys() - {ALL})
        raise SettingError(
            setting,
            subject,
            f': {lacks} route named "{name}".{did_you_mean(name, names)} Named routes: {", ".join(names) or "none"}.',
            (name,),
        )


def _check_parameters(
    setting: str,
    subject: str,
    parts: tuple[str, ...],
    parameters: Collection[str],
    existing: Collection[str],
    *,
    lacks: str,
) -> None:
    for parameter in sorted(set(parameters) - set(existing)):
        raise SettingError(
            setting,
            subject,
            f': {lacks} parameter "{parameter}".{did_you_mean(parameter, existing)} '
            f"Its parameters: {', '.join(sorted(existing)) or 'none'}.",
            (*parts, parameter),
        )


def _check_values(
    subject: str, name: str, parameter: str, values: Collection[str], resources: list[AbstractResource]
) -> None:
    selected = [
        resource for resource in resources if name in (ALL, resource.name) and parameter in parameter_names(resource)
    ]
    for value in sorted(values):
        if not any(may_match(resource, parameter, value) for resource in selected):
            raise SettingError(
                "allow_values",
                subject,
                f': no request can have "{value}" for the parameter "{parameter}", because the pattern of '
                "the route does not match it. Remove the value.",
                (name, parameter, value),
            )


def fixed_parameters(value: object) -> dict[str, frozenset[str]]:
    """Check and copy ``{route name: [parameter, …]}``; ``*`` may stand for each name.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError`, a :exc:`ValueError`, for any other shape.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"fixed_routes_parameters is {_kind(value)}. Expected a mapping of route names to parameter names, for example "
            '{"get_cell": ["cell_id"]}.'
        )
    fixed: dict[str, frozenset[str]] = {}
    for name, parameters in value.items():
        # An exact list of types, because strings and mappings are collections, too.
        if not isinstance(parameters, (list, tuple, set, frozenset)) or not all(
            isinstance(each, str) for each in (name, *parameters)
        ):
            raise ConfigurationError(
                f"fixed_routes_parameters[{name!r}] is {_kind(parameters)}. Expected a list, tuple or set of "
                'parameter names, for example ["cell_id"].'
            )
        fixed[name] = frozenset(parameters)
    return fixed


def _kind(value: object) -> str:
    return f"{value!r}, of type {type(value).__name__}"


def allowed_values(value: object) -> dict[str, dict[str, frozenset[str]]]:
    """Check and copy ``{route name: {parameter: [value, …]}}``.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError`, a :exc:`ValueError`, for any other shape.
    """
    expected = (
        "Expected a mapping of route names to parameters and their values, for example "
        '{"get_cell_neighbour": {"direction": ["north", "south"]}}.'
    )
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"allow_values is {_kind(value)}. {expected}")
    allowed: dict[str, dict[str, frozenset[str]]] = {}
    for name, parameters in value.items():
        if not isinstance(parameters, Mapping):
            raise ConfigurationError(f"allow_values[{name!r}] is {_kind(parameters)}. {expected}")
        for parameter, values in parameters.items():
            is_list = isinstance(values, (list, tuple, set, frozenset)) and values
            if not is_list or not all(isinstance(each, str) for each in (name, parameter, *values)):
                raise ConfigurationError(f"allow_values[{name!r}][{parameter!r}] is {_kind(values)}. {expected}")
            allowed.setdefault(name, {})[parameter] = frozenset(values)
    return allowed
