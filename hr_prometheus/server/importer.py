"""Imports the modules and files of a target, and tells their failures apart."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from typing import TYPE_CHECKING

from aiohttp import web

from hr_prometheus.errors import ApplicationError, HrPrometheusError, TargetError, did_you_mean
from hr_prometheus.server import interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from hr_prometheus.server.target import Target

    Suggest = Callable[[str, Mapping[str, object]], str]

EXPECTED = 'Expected "module:attribute", "path/to/file.py:attribute" or a script, "path/to/script.py".'
#: The packages whose frames are cut from the beginning of an application's traceback.
_MACHINERY = frozenset({"aiohttp", "aiosignal", "asyncio", "hr_prometheus", "importlib", "runpy", "uvloop"})

#: Matches the usual names of a function that makes an application.
_FACTORY = re.compile(r"(create|make|build|get|init|setup)?_?(web)?_?app(lication)?(_?factory)?")


def load_attribute(target: Target, app_dir: str, suggest: Suggest = lambda _module, _names: "") -> object:
    """Import the target's module and return its attribute, or the module if the target has none.

    *suggest* returns a question with the likeliest attribute of a module, for the error if there is no such attribute.
    """
    value = module = _import(target, app_dir, suggest)
    for name in (target.attribute or "").split(".") if target.attribute else ():
        try:
            value = getattr(value, name)
        except AttributeError:
            hint = did_you_mean(name, dir(value)) or (suggest(target.module, vars(value)) if value is module else "")
            raise TargetError(f'"{target.module}" has no attribute "{target.attribute}".{hint}') from None
    return value


def _import(target: Target, app_dir: str, suggest: Suggest) -> object:
    put_first_on_path(app_dir)
    name, path = target.module, None
    if target.is_file:
        path = file_path(target)
        name = _module_name(path)
    try:
        module = importlib.import_module(name)
    except HrPrometheusError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and is_missing(name, error):
            raise missing_module_error(name, app_dir, suggest) from None
        raise application_error(f'"{target.module}" failed while it was imported', error) from error

    file = getattr(module, "__file__", None)
    if path is not None and (file is None or not os.path.samefile(file, path)):
        raise TargetError(
            f'"{target.module}" is hidden by another module named "{name}", which is imported already. '
            "Give the file another name."
        )
    return module


def file_path(target: Target) -> str:
    """Return the absolute path of a target that is a file; raise if there is no such file."""
    if not os.path.isfile(target.module):
        raise TargetError(f'there is no file "{target.module}" (looked in "{os.getcwd()}"). {EXPECTED}')
    return os.path.abspath(target.module)


def _module_name(path: str) -> str:
    """Return the dotted name of a file, whose outermost package's directory is put first on ``sys.path``."""
    directory, file_name = os.path.split(path)
    names = [file_name.removesuffix(".py")]
    while os.path.isfile(os.path.join(directory, "__init__.py")):
        directory, package = os.path.split(directory)
        names.insert(0, package)
    put_first_on_path(directory)
    return ".".join(name for name in names if name != "__init__")


def put_first_on_path(directory: str) -> None:
    """Import from *directory* before all others."""
    sys.path.insert(0, os.path.abspath(directory))


def is_missing(name: str, error: ModuleNotFoundError) -> bool:
    """Whether *error* says that the module *name* or a package above it is missing, not one that it imports."""
    return error.name is not None and f"{name}.".startswith(f"{error.name}.")


def missing_module_error(name: str, app_dir: str, suggest: Suggest) -> TargetError:
    """Return the error for a module that does not exist. It may have been meant for an attribute of the package above it."""
    import pkgutil  # noqa: PLC0415  # only on the way to an error

    parent, _, attribute = name.rpartition(".")
    above = sys.modules.get(parent)
    if above is not None and hasattr(above, attribute):
        hint = f' Did you mean "{parent}:{attribute}"?'
    else:
        path = getattr(above, "__path__", None) if parent else [app_dir]
        prefix = f"{parent}." if parent else ""
        existing = [prefix + module.name for module in pkgutil.iter_modules(path or [])]
        hint = did_you_mean(name, existing) or (suggest(parent, vars(above)) if above is not None else "")
    return TargetError(
        f'there is no module "{name}".{hint} Looked in "{os.path.abspath(app_dir)}" and on '
        "the Python path; --app-dir names another directory."
    )


def suggest_application(module: str, names: Mapping[str, object]) -> str:
    """Return a question with the likeliest application, or factory of one, among a module's *names*; or nothing."""
    functions = {name: value for name, value in names.items() if inspect.isfunction(value)}
    candidates = [name for name, value in names.items() if isinstance(value, web.Application)]
    candidates += [name for name in functions if _FACTORY.fullmatch(name)]
    candidates += [name for name, value in functions.items() if _returns_application(value)]
    return f' Did you mean "{module}:{candidates[0]}"?' if candidates else ""


def _returns_application(function: Callable[..., object]) -> bool:
    try:
        return "Application" in str(function.__annotations__.get("return", ""))
    except NameError:  # since Python 3.14 an annotation is evaluated here
        return False


def application_error(what: str, error: BaseException) -> ApplicationError:
    """Return the error to raise from *error*, whose traceback is cut to begin in the application's code.

    If *error* stands for an interruption, :exc:`KeyboardInterrupt` is raised instead.
    """
    if interrupts.is_interruption(error):
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
