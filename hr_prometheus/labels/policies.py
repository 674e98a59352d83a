"""Policies: what the values of a route's parameters do to its labels.

A value is kept within the route's budget if it is *safe*, which is the default; or it is *fixed*, shown as ``{name}``
whatever it is; or it is *allowed*, kept if it is one of a list and else shown as ``other``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from hr_prometheus.errors import ConfigurationError, SettingError, did_you_mean
from hr_prometheus.labels.resources import all_resources, has_start_up, may_match, parameter_names

if TYPE_CHECKING:
    from aiohttp.web import AbstractResource, Application

logger = logging.getLogger("hr_prometheus")

#: Stands for every route, or for every parameter of a route.
ALL = "*"
#: What a value is shown as that is not in the list of the allowed ones.
OTHER = "other"
#: How many distinct path labels a route may have in one process before further ones are folded.
DEFAULT_PATH_BUDGET = 100
#: Which values are kept that no list names: those that look neither like a secret nor like a person, or all of them.
SAFE, EVERY = KEEP_VALUES = ("safe", "all")
# Letters, digits, "-", "_", "." and "~", with fewer than 9 digits; more than 15 only if they are not letters and digits mixed.
_SAFE_VALUE = r"(?!(?:[^/\d]*\d){9})(?:[\w.~-]{0,15}|[A-Za-z_.~-]{16,32}|[\d_.~-]{16,32})"


class Policies:
    """The policies of one application's parameters.

    *fixed* is ``{route name: [parameter, …]}`` and *allowed* ``{route name: {parameter: [value, …]}}``; ``*`` stands
    for every route and, in *fixed*, for every parameter. What names a route and its parameter wins over a star.
    *keep_values* is ``safe`` or ``all``: which values of other parameters are kept.
    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for other shapes and for contradictions.
    """

    def __init__(self, fixed: object, allowed: object, keep_values: str = SAFE) -> None:
        if keep_values not in KEEP_VALUES:
            raise ConfigurationError(f'keep_values is {keep_values!r}. Expected "safe" or "all".')
        self.keeps_all = keep_values == EVERY
        #: Called with an error that is only a warning. A command sets it, because it has words of its own.
        self.warn: Callable[[ConfigurationError], None] = lambda error: logger.warning("%s", error)
        self.fixed = fixed_parameters(fixed or {})
        self.allowed = allowed_values(allowed or {})
        for name, parameters in self.allowed.items():
            for parameter in parameters:
                if parameter in self.fixed.get(name, frozenset()):
                    raise SettingError(
                        "allow_values",
                        "allow_values",
                        f': the parameter "{parameter}" of the route "{name}" is fixed and has allowed values as well.',
                        (name, parameter),
                        " Remove it there or from fixed_routes_parameters.",
                        " Remove it there or from --fixed-route.",
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

    def check(self, app: Application, *, leniently: bool = False) -> None:
        """Check that each route and parameter exists in the application's router, and that each value can occur.

        Raises :exc:`~hr_prometheus.errors.ConfigurationError`, which names what exists; *leniently*, that is a warning
        where the application has a start-up, which may add routes.
        """
        try:
            self._check(app)
        except ConfigurationError as error:
            if not (leniently and has_start_up(app)):
                raise
            self.warn(error)

    def _check(self, app: Application) -> None:
        if not self.fixed and not self.allowed:
            return  # and nothing is asked of a router that may be the application's own
        resources = list(all_resources(app))
        for name, fixed in self.fixed.items():
            said = f"fixed_routes_parameters={ ({name: sorted(fixed)}) }"
            _check_names("fixed_routes_parameters", said, name, fixed - {ALL}, resources)
        for name, allowed in self.allowed.items():
            for parameter, values in allowed.items():
                said = f"allow_values={ ({name: {parameter: sorted(values)}}) }"
                _check_names("allow_values", said, name, {parameter}, resources)
                _check_values(said, name, parameter, values, resources)


@cache
def safety_of(number: int) -> Callable[[Any], object]:
    """Return what says whether values are safe to be kept: of one value, or of a tuple with that *number* of them.

    A value is safe that has at most 32 characters, each a letter, a digit, ``-``, ``_``, ``.`` or ``~`` of ASCII; at most 8
    of them digits; and, if there are 16 or more, no letter or no digit. So e-mail addresses, telephone numbers, UUIDs and
    tokens are not.
    """
    match = re.compile("/".join([_SAFE_VALUE] * number), re.ASCII).fullmatch
    return match if number == 1 else lambda values: match("/".join(values))


def _check_names(
    setting: str, said: str, name: str, parameters: Collection[str], resources: list[AbstractResource]
) -> None:
    named: dict[str, set[str]] = {}
    for resource in resources:
        named.setdefault(ALL, set()).update(parameter_names(resource))
        if resource.name is not None:
            named.setdefault(resource.name, set()).update(parameter_names(resource))
    if name != ALL and name not in named:
        names = sorted(named.keys() - {ALL})
        raise SettingError(
            setting,
            said,
            f': the application has no route named "{name}".{did_you_mean(name, names)} '
            f"Named routes: {', '.join(names) or 'none'}.",
            (name,),
        )
    known = named.get(name, set())
    where = "the application" if name == ALL else f'the route "{name}"'
    if not known and name != ALL:
        problem = f": {where} has no parameters, so the setting has no meaning. Remove it."
        raise SettingError(setting, said, problem, (name,))
    for parameter in sorted(set(parameters) - known):
        raise SettingError(
            setting,
            said,
            f': {where} has no parameter "{parameter}".{did_you_mean(parameter, known)} '
            f"Its parameters: {', '.join(sorted(known)) or 'none'}.",
            (name, parameter),
        )


def _check_values(
    said: str, name: str, parameter: str, values: Collection[str], resources: list[AbstractResource]
) -> None:
    meant = [
        resource for resource in resources if name in (ALL, resource.name) and parameter in parameter_names(resource)
    ]
    for value in sorted(values):
        if not any(may_match(resource, parameter, value) for resource in meant):
            raise SettingError(
                "allow_values",
                said,
                f': no request can have "{value}" for the parameter "{parameter}", because the pattern of '
                "the route does not match it. Remove the value.",
                (name, parameter, value),
            )


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
    expected = 'Expected, for example, {"get_cell_neighbour": {"direction": ["north", "south"]}}.'
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"allow_values is no mapping of route names but {_kind(value)}. {expected}")
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
