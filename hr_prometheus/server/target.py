"""From a target to an application: ``module:attribute`` or ``path/to/file.py:attribute``; a script has no attribute."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from hr_prometheus.errors import HrPrometheusError, SettingError, TargetError
from hr_prometheus.server.importer import EXPECTED, application_error, load_attribute, suggest_application

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence


@dataclass(frozen=True)
class Target:
    """A target, read but not yet looked at: a module name or a file's path, and an attribute or none."""

    text: str
    module: str
    attribute: str | None

    @property
    def is_file(self) -> bool:
        """Whether ``module`` is the path of a file."""
        return self.module.endswith(".py") or os.sep in self.module


def parse_target(text: str) -> Target:
    """Read a target. Raises :exc:`~hr_prometheus.errors.TargetError` if it is none."""
    module, colon, attribute = text.rpartition(":") if ":" in text else (text, "", "")
    if attribute.endswith(")") and "(" in text:
        raise TargetError(
            f'the target "{text}" has parentheses. Leave them out: "{text.partition("(")[0]}". A function is called with '
            'nothing, or with the list of the arguments behind "--".'
        )
    target = Target(text, module, attribute if colon else None)
    names = module.split(".")
    if target.is_file:
        # A name with a dot cannot be imported; one with a space or a hyphen can.
        name = os.path.basename(module).removesuffix(".py")
        names = [re.sub(r"[ -]", "_", f"_{name}")] if colon else []
    names += attribute.split(".") if colon else []
    if not module or not all(name.isidentifier() for name in names):
        raise TargetError(f'the target "{text}" is not understood. {EXPECTED}')
    return target


def load_target(target: Target, arguments: Sequence[str], app_dir: str) -> web.Application | Awaitable[object]:
    """Import the target's module and return its application, or an awaitable of it.

    A function is called with nothing or, if it requires one positional argument, with the list of *arguments*;
    so is one whose single argument has a default, when there are arguments. *app_dir* comes first on
    ``sys.path``. The arguments are in ``sys.argv`` too.

    Raises :exc:`~hr_prometheus.errors.TargetError` if there is no such module, attribute or application, and
    :exc:`~hr_prometheus.errors.ApplicationError` if the application's code fails.
    """
    sys.argv = [target.text, *arguments]
    with replace_attribute(web, "run_app", _refuse_to_run(target)):
        value = load_attribute(target, app_dir, suggest_application)
        if not isinstance(value, web.Application) and callable(value) and _other_interface(value) is None:
            value = _call(target, value, list(arguments))
    if isinstance(value, web.Application) or inspect.isawaitable(value):
        return value
    raise not_an_application_error(target.text, value)


def script_with_workers_error(target: str) -> SettingError:
    """Return the error for a script that several workers are to serve."""
    problem = (
        f': "{target}" is a script, whose addresses are known only when it has run. Expected a target with an attribute, '
        '"module:attribute".'
    )
    return SettingError("workers", "--workers", problem)


async def make_application(target: str, value: object) -> web.Application:
    """Return the application that *value* is, or that it is an awaitable of; *target* names it in errors."""
    if inspect.isawaitable(value):
        try:
            value = await value
        except Exception as error:
            # Here rather than around the loop, where aiohttp's run_app before 3.14 shortens the traceback.
            raise application_error(f'"{target}" failed while it made the application', error) from error
    if not isinstance(value, web.Application):
        raise not_an_application_error(target, value)
    return value


def not_an_application_error(target: str, value: object) -> TargetError:
    """Return the error for a target whose *value* is no application."""
    interface = _other_interface(value)
    if interface is not None:
        return TargetError(f'"{target}" is {interface} application; hr-prometheus serves aiohttp applications.')
    kind = "None" if value is None else f"of type {type(value).__name__}"
    return TargetError(
        f'"{target}" gives no aiohttp application; its value is {kind}. Expected an aiohttp.web.Application, '
        "or a function which returns one."
    )


def _other_interface(value: object) -> str | None:
    """Return the interface of an application that is not aiohttp's, with its article, or ``None``."""
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


def _call(target: Target, factory: Callable[..., object], arguments: list[str]) -> object:
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except ValueError:  # written in C
        parameters = []
    required = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    positional = [
        parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) > 1 or any(parameter not in positional for parameter in required):
        names = ", ".join(parameter.name for parameter in required)
        raise TargetError(
            f'"{target.text}" wants the arguments {names}. A factory is called with nothing, or with one list of the '
            'arguments behind "--". Give the arguments defaults, or name a function without them.'
        )
    takes_arguments = bool(required) or (bool(arguments) and len(positional) == 1)
    try:
        return factory(arguments) if takes_arguments else factory()
    except HrPrometheusError:
        raise
    except Exception as error:
        raise application_error(f'"{target.text}" failed while it made the application', error) from error


def close_unawaited(value: object) -> None:
    """Close *value* if it is a coroutine that was never awaited, so that Python does not warn of it."""
    if inspect.iscoroutine(value):
        value.close()


@contextmanager
def replace_attribute(owner: object, name: str, replacement: object) -> Iterator[None]:
    """Give *owner* another attribute while the block runs."""
    own = vars(owner).get(name)  # None if it is inherited
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def _refuse_to_run(target: Target) -> Callable[..., None]:
    def run_app(app: object, **_arguments: object) -> None:
        close_unawaited(app)
        raise TargetError(
            f'"{target.module}" calls web.run_app itself, so it is a script. Run it as one, without an attribute: '
            f"hr-prometheus run {shlex.quote(target.module)}"
        )

    return run_app
