"""What a value seems to be, and what of a module seems to be meant: only for errors."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def interface(value: object) -> str | None:
    """Return the interface of an application that is none of aiohttp's, with its article, or ``None``."""
    if not callable(value) or isinstance(value, (type, web.Application)):
        return None
    if callable(getattr(value, "wsgi_app", None)):
        return "a WSGI"
    try:
        names = list(inspect.signature(value).parameters)
    except (TypeError, ValueError):  # written in C
        return None
    if names[:3] == ["scope", "receive", "send"]:
        return "an ASGI"
    return "a WSGI" if len(names) == 2 and re.fullmatch("env(iron)?", names[0]) and "start" in names[1] else None


def did_you_mean_attribute(module: str, names: Mapping[str, object]) -> str:
    """Return a question after the application, or after what seems to make one, among a module's *names*."""
    factory = re.compile(r"(create|make|build|get|init|setup)?_?(web)?_?app(lication)?(_?factory)?")
    found = [name for name, value in names.items() if isinstance(value, web.Application)]
    found += [name for name, value in names.items() if inspect.isfunction(value) and factory.fullmatch(name)]
    found += [name for name, value in names.items() if inspect.isfunction(value) and _makes_application(value)]
    return f' Did you mean "{module}:{found[0]}"?' if found else ""


def _makes_application(function: Callable[..., object]) -> bool:
    return "Application" in str(getattr(function, "__annotations__", {}).get("return", ""))
