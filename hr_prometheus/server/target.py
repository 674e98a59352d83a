"""From a target to an application: ``module:attribute`` or ``path/to/file.py:attribute``; a script has no attribute."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from hr_prometheus.errors import ApplicationError, HrPrometheusError, TargetError, did_you_mean
from hr_prometheus.server import guesses, interrupts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from types import TracebackType

_EXPECTED = 'Expected "module:attribute", "path/to/file.py:attribute" or a script, "path/to/script.py".'
_MACHINERY = frozenset({"aiohttp", "aiosignal", "asyncio", "hr_prometheus", "importlib", "runpy", "uvloop"})


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
        bare = text.partition("(")[0]
        raise TargetError(
            f'the target "{text}" has parentheses. Leave them out: "{bare}". A function is called with nothing, or with '
            'the list of the arguments behind "--".'
        )
    target = Target(text, module, attribute if colon else None)
    names = module.split(".")
    if target.is_file:
        # A name with a dot cannot be imported; one with a space or a hyphen can.
        name = os.path.basename(module).removesuffix(".py")
        names = [re.sub(r"[ -]", "_", f"_{name}")] if colon else []
    names += attribute.split(".") if colon else []
    if not module or not all(name.isidentifier() for name in names):
        raise TargetError(f'the target "{text}" is not understood. {_EXPECTED}')
    return target


def load_target(target: Target, arguments: Sequence[str], app_dir: str) -> web.Application | Awaitable[object]:
    """Import the target's module and return its application, or what will give it when awaited.

    A function is called with nothing or, if it wants one positional argument, with the list of *arguments*;
    so is one whose single argument has a default, when there are arguments. *app_dir* comes first on
    ``sys.path``. The arguments are in ``sys.argv`` too.

    Raises :exc:`~hr_prometheus.errors.TargetError` if there is no such module, attribute or application, and
    :exc:`~hr_prometheus.errors.ApplicationError` if the application's code fails.
    """
    sys.argv = [target.text, *arguments]
    with replaced(web, "run_app", _refuse_to_run(target)):
        value = load_attribute(target, app_dir)
        if not isinstance(value, web.Application) and callable(value) and guesses.interface(value) is None:
            value = _call(target, value, list(arguments))
    if isinstance(value, web.Application) or inspect.isawaitable(value):
        return value
    raise not_an_application(target.text, value)


def load_attribute(target: Target, app_dir: str) -> object:
    """Import the target's module and return its attribute, or the module if the target has none."""
    value = _import(target, app_dir)
    for name in (target.attribute or "").split(".") if target.attribute else ():
        try:
            value = getattr(value, name)
        except AttributeError:
            raise TargetError(
                f'"{target.module}" has no attribute "{target.attribute}".{did_you_mean(name, dir(value))}'
            ) from None
    return value


def not_an_application(target: str, value: object) -> TargetError:
    """Return the error for a target that gives *value* instead of an application."""
    interface = guesses.interface(value)
    if interface is not None:
        return TargetError(f'"{target}" is {interface} application; hr-prometheus serves aiohttp applications.')
    kind = "None" if value is None else f"of type {type(value).__name__}"
    return TargetError(
        f'"{target}" gives no aiohttp application; its value is {kind}. Expected an aiohttp.web.Application, '
        "or a function which returns one."
    )


async def make_application(target: str, value: object) -> web.Application:
    """Return the application that *value* is or gives when it is awaited; *target* names it in errors."""
    if inspect.isawaitable(value):
        try:
            value = await value
        except Exception as error:
            # Here rather than around the loop, where aiohttp's run_app before 3.14 shortens the traceback.
            raise application_error(f'"{target}" failed while it made the application', error) from error
    if not isinstance(value, web.Application):
        raise not_an_application(target, value)
    return value


def application_error(what: str, error: BaseException) -> ApplicationError:
    """Return the error to raise from *error*, whose traceback is cut to begin in the application's code.

    If it is an interruption that became another error, :exc:`KeyboardInterrupt` is raised instead.
    """
    if interrupts.has_caused(error):
        raise KeyboardInterrupt from None
    traceback = error.__traceback__
    while traceback is not None and _is_machinery(traceback):
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    text = str(error)
    return ApplicationError(f"{what}: {type(error).__name__}{f': {text}' if text else ''}")


def _is_machinery(traceback: TracebackType) -> bool:
    name = str(traceback.tb_frame.f_globals.get("__name__"))
    return name.partition(".")[0] in _MACHINERY


def _import(target: Target, app_dir: str) -> object:
    put_first(app_dir)
    name, path = target.module, None
    if target.is_file:
        path = existing_file(target)
        name = _module_name(path)
    try:
        module = importlib.import_module(name)
    except HrPrometheusError:
        raise
    except ModuleNotFoundError as error:
        if is_of(name, error):
            raise no_module(name, app_dir) from None
        raise application_error(f'"{target.module}" failed while it was imported', error) from error
    except Exception as error:
        raise application_error(f'"{target.module}" failed while it was imported', error) from error

    found = getattr(module, "__file__", None)
    if path is not None and (found is None or not os.path.samefile(found, path)):
        raise TargetError(
            f'"{target.module}" is hidden by another module named "{name}", which is imported already. '
            "Give the file another name."
        )
    return module


def existing_file(target: Target) -> str:
    """Return the absolute path of a target that is a file."""
    if not os.path.isfile(target.module):
        raise TargetError(f'there is no file "{target.module}" (looked in "{os.getcwd()}"). {_EXPECTED}')
    return os.path.abspath(target.module)


def _module_name(path: str) -> str:
    """Return the dotted name of a file, whose outermost package's directory is put first on ``sys.path``."""
    directory, file_name = os.path.split(path)
    names = [file_name.removesuffix(".py")]
    while os.path.isfile(os.path.join(directory, "__init__.py")):
        directory, package = os.path.split(directory)
        names.insert(0, package)
    put_first(directory)
    return ".".join(name for name in names if name != "__init__")


def put_first(directory: str) -> None:
    """Import from a directory before all others."""
    sys.path.insert(0, os.path.abspath(directory))


def is_of(name: str, error: ModuleNotFoundError) -> bool:
    """Whether it is the module *name* that is missing, or a package above it, and not an import inside."""
    return error.name is not None and f"{name}.".startswith(f"{error.name}.")


def no_module(name: str, app_dir: str) -> TargetError:
    """Return the error for a module that does not exist."""
    import pkgutil  # noqa: PLC0415  # only on the way to an error

    parent = name.rpartition(".")[0]
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else [app_dir]
    prefix = f"{parent}." if parent else ""
    existing = [prefix + module.name for module in pkgutil.iter_modules(path or [])]
    return TargetError(
        f'there is no module "{name}".{did_you_mean(name, existing)} Looked in "{os.path.abspath(app_dir)}" and on '
        "the Python path; --app-dir names another directory."
    )


def _call(target: Target, function: Callable[..., object], arguments: list[str]) -> object:
    """Call the factory of an application."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # written in C
        parameters = []
    wanted = [
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
    if len(wanted) > 1 or any(parameter not in positional for parameter in wanted):
        names = ", ".join(parameter.name for parameter in wanted)
        raise TargetError(
            f'"{target.text}" wants the arguments {names}. A factory is called with nothing, or with one list of the '
            'arguments behind "--". Give the arguments defaults, or name a function without them.'
        )
    takes_arguments = bool(wanted) or (bool(arguments) and len(positional) == 1)
    try:
        return function(arguments) if takes_arguments else function()
    except HrPrometheusError:
        raise
    except Exception as error:
        raise application_error(f'"{target.text}" failed while it made the application', error) from error


def close_unawaited(value: object) -> None:
    """Close what would have given an application, if it is a coroutine that nobody awaits any more."""
    if inspect.iscoroutine(value):
        value.close()


@contextmanager
def replaced(owner: object, name: str, replacement: object) -> Iterator[None]:
    """Give *owner* an attribute for a while; one that it has inherited is not its own to keep."""
    own = vars(owner).get(name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def _refuse_to_run(target: Target) -> Callable[..., None]:
    def run_app(app: object, **_kwargs: object) -> None:
        close_unawaited(app)
        raise TargetError(
            f'"{target.module}" calls web.run_app itself, so it is a script. Run it as one, without an attribute: '
            f"hr-prometheus run {target.module}"
        )

    return run_app
