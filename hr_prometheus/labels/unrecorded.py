"""Handlers whose requests are never recorded, because they only show what is."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

_unrecorded: WeakSet[object] = WeakSet()

H = TypeVar("H", bound="Callable[..., object]")


def unrecorded(handler: H) -> H:
    """Leave the requests of this handler out of all metrics and of the access log. It must be the handler of a route."""
    _unrecorded.add(handler)
    return handler


def is_recorded(handler: object) -> bool:
    """Whether the requests of *handler* are recorded."""
    return handler not in _unrecorded
