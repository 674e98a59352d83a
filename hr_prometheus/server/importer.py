"""Imports the modules and files of a target, and tells their failures apart."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from hr_prometheus.errors import ApplicationError, HrPrometheusError, TargetError, did_you_mean
from hr_prometheus.server import interrupts

if TYPE_CHECKING:
    from types import TracebackType

    from hr_prometheus.server.target import Target

EXPECTED = 'Expected "module:attribute", "path/to/file.py:attribute" or a script, "path/to/script.py".'
#: The packages whose frames are cut from the beginning of an application's traceback.
_MACHINERY = frozenset({"aiohttp", "aiosignal", "asyncio", "hr_prometheus", "importlib", "runpy", "uvloop"})


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


def _import(target: Target, app_dir: str) -> object:
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
            raise missing_module_error(name, app_dir) from None
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


def missing_module_error(name: str, app_dir: str) -> TargetError:
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
