"""What the file of ``--log-config`` needs that may be missing: classes, and directories of files. Nothing of it is made."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from hr_prometheus.server.logs import log_config_error, read_log_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hr_prometheus.settings import Settings

#: The parts of a configuration, and dictConfig's words for a member.
_PARTS = {"formatters": "formatter", "filters": "filter", "handlers": "handler"}
#: The keys whose text names a class or a function.
_NAMES = ("class", "()")
#: The module of the standard library whose modules can be imported for a look, and its classes that open a file.
_LOGGING = "logging"
_FILE_HANDLERS = {
    f"logging.{name}"
    for name in ("FileHandler", *(f"handlers.{each}FileHandler" for each in ("Rotating", "TimedRotating", "Watched")))
}


def check_log_objects(settings: Settings) -> None:
    """Check that classes and directories that a log configuration names are there, in the words of its use.

    No module but those of ``logging`` is imported, so another one's classes are not looked for. Raises
    :exc:`~hr_prometheus.errors.SettingError`.
    """
    if settings.log_config is None:
        return
    config = read_log_config(settings.log_config)
    for part, word in _PARTS.items():
        members = config.get(part, {})
        for name, member in members.items() if isinstance(members, dict) else ():
            for reason in _problems(member, settings.app_dir) if isinstance(member, dict) else ():
                problem = f"cannot be used: Unable to configure {word} {name!r} ({reason})."
                raise log_config_error(settings.log_config, problem)


def _problems(member: dict[str, Any], app_dir: str) -> Iterator[str]:
    for key in _NAMES:
        text = member.get(key)
        reason = _missing(text, app_dir) if isinstance(text, str) and "://" not in text else ""
        if reason:
            yield f"Cannot resolve {text!r}: {reason}"
    path = member.get("filename")
    if (
        member.get("class") in _FILE_HANDLERS
        and isinstance(path, str)
        and "://" not in path
        and not member.get("delay")
    ):
        error = _open_error(os.path.abspath(path))
        if error is not None:
            yield str(error)


def _missing(text: str, app_dir: str) -> str:
    """Return why the object of a dotted name cannot be there; empty if it may be."""
    top, *names = text.split(".")
    if top not in sys.modules and PathFinder.find_spec(top, [os.path.abspath(app_dir), *sys.path]) is None:
        return f"No module named {top!r}"
    path, value = top, import_module(_LOGGING)
    for name in names if top == _LOGGING else ():
        path = f"{path}.{name}"
        if not hasattr(value, name):
            try:
                import_module(path)
            except ImportError as error:
                return str(error)
        value = getattr(value, name)
    return ""


def _open_error(path: str) -> OSError | None:
    """Return the error of a file that cannot be opened to be written to."""
    directory = os.path.join(os.path.dirname(path), "")
    code = 0
    try:
        os.stat(directory)
    except OSError as error:
        code = error.errno or errno.ENOENT
    else:
        if os.path.isdir(path):
            code = errno.EISDIR
        elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
            code = errno.EACCES
    return OSError(code, os.strerror(code), path) if code else None
