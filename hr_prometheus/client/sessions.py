"""The client sessions of an application: those that it keeps, and all that the process makes."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import wraps
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, cast

from aiohttp import ClientSession

from hr_prometheus.client.trace_config import is_ours
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels.resources import all_applications

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aiohttp import TraceConfig
    from aiohttp.web import Application

#: How the values of containers are got, also where a class of the application's inherits one.
_VALUES: dict[type, Callable[[Any], Iterable[object]]] = {
    dict: dict.values, list: list.__iter__, tuple: tuple.__iter__, set: set.__iter__, frozenset: frozenset.__iter__,
}  # fmt: skip


def measure_session(session: ClientSession, config: TraceConfig) -> bool:
    """Record the requests of a session from now on, unless a configuration of ours does so already.

    Return whether they are recorded: the ``trace_configs`` of a session can be a tuple, to which none can be added. A list
    that several sessions have in common gets one configuration.
    """
    configs = session.trace_configs
    if any(map(is_ours, configs)):
        return True
    if not isinstance(configs, list):
        return False
    configs.append(config)
    return True


def kept_sessions(app: Application) -> list[ClientSession]:
    """Return the sessions that an application and those below it keep under their keys.

    They are values, members of a list, tuple, set or dictionary, or attributes of an object.
    """
    values = (value for each in all_applications(app) for value in each.values())
    sessions = {id(each): each for value in values for each in _members(value) if _is_session(each)}
    return cast("list[ClientSession]", [*sessions.values()])


def _is_session(value: object) -> bool:
    """Whether a value is an open session. Other objects are not asked what they are: that may raise anything."""
    return issubclass(type(value), ClientSession) and not cast("ClientSession", value).closed


def _members(value: object) -> Iterable[object]:
    if issubclass(type(value), ClientSession):
        return [value]
    members: list[object] = []
    for kind, values in _VALUES.items():
        if issubclass(type(value), kind):  # its own class may do whatever it likes to get its values
            members += values(value)
    for attributes in (_variables, _slots):
        with suppress(Exception):  # the application's objects may do anything
            members += attributes(value)
    return members


def _variables(value: object) -> Iterable[object]:
    return vars(value).values()


def _slots(value: object) -> Iterator[object]:
    for each in type(value).__mro__:
        for slot in vars(each).values():
            if isinstance(slot, MemberDescriptorType):
                with suppress(AttributeError):  # nothing is in it
                    yield slot.__get__(value)


@contextmanager
def measure_new_sessions(make_config: Callable[[], TraceConfig]) -> Iterator[None]:
    """Record the requests of all sessions that are made while the block runs, by the configuration of *make_config*.

    If it raises :exc:`~hr_prometheus.errors.ConfigurationError`, the requests of the session are not recorded.

    ``ClientSession.__init__`` is replaced: a session that the application does not keep shows itself nowhere else. Only the
    command does that, and only for ``--client-metrics=all``.
    """
    kind: Any = ClientSession
    original = kind.__init__

    @wraps(original)
    def init(session: ClientSession, *args: Any, **options: Any) -> None:
        # A list that is given is the session's from now on, and the application may change it later.
        configs = options.get("trace_configs") or ()
        # aiohttp itself reports what is not a list of configurations.
        with suppress(TypeError, ConfigurationError):
            if not isinstance(configs, list):
                configs = options["trace_configs"] = list(configs)
            if not any(map(is_ours, configs)):
                configs.append(make_config())
        original(session, *args, **options)

    kind.__init__ = init
    try:
        yield
    finally:
        kind.__init__ = original
