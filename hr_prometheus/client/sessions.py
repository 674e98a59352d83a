"""The client sessions of an application: those that it keeps, and all that the process makes."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from aiohttp import ClientSession

from hr_prometheus.client.trace_config import is_ours
from hr_prometheus.labels.resources import all_applications

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aiohttp import TraceConfig
    from aiohttp.web import Application


def measure_session(session: ClientSession, config: TraceConfig) -> None:
    """Record the requests of a session from now on, unless a configuration of ours does so already."""
    if not any(map(is_ours, session.trace_configs)):
        session.trace_configs.append(config)


def kept_sessions(app: Application) -> list[ClientSession]:
    """Return the sessions that an application and those below it keep under their keys.

    They are values, members of a list, set or dictionary, or attributes of an object.
    """
    values = (value for each in all_applications(app) for value in each.values())
    sessions = {id(each): each for value in values for each in _members(value) if isinstance(each, ClientSession)}
    return [each for each in sessions.values() if not each.closed]


def _members(value: object) -> Iterable[object]:
    if isinstance(value, ClientSession):
        return [value]
    if type(value) is dict:  # any other mapping may do whatever it likes to get its values
        return list(value.values())
    if type(value) in {list, tuple, set, frozenset}:
        return list(cast("Iterable[object]", value))
    return list(getattr(value, "__dict__", {}).values())


@contextmanager
def measure_new_sessions(config: TraceConfig) -> Iterator[None]:
    """Record the requests of all sessions that are made while the block runs.

    ``ClientSession.__init__`` is replaced: a session that the application does not keep shows itself nowhere else. Only the
    command does that, and only for ``--client-metrics=all``.
    """
    kind: Any = ClientSession
    original = kind.__init__

    @wraps(original)
    def init(session: ClientSession, *args: Any, **options: Any) -> None:
        original(session, *args, **options)
        measure_session(session, config)

    kind.__init__ = init
    try:
        yield
    finally:
        kind.__init__ = original
