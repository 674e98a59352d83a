"""The files that the commands write: whole or not at all, and never over what was read."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.commands.streams import print_result
from hr_prometheus.errors import ConfigurationError, ServingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hr_prometheus.settings import Settings


#: The settings whose files are read.
_INPUTS = (
    "certfile", "keyfile", "metrics_certfile", "metrics_keyfile", "metrics_token_file", "metrics_web_config",
)  # fmt: skip


def write_outputs(outputs: Mapping[str, tuple[str | None, str]], settings: Settings) -> None:
    """Write the file and the text of each option. The text of an option without a file goes to standard output.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if a file is the file of another option, the target, a module
    or a certificate, however it is spelt or linked to, and :exc:`~hr_prometheus.errors.ServingError` if the operating
    system refuses it.
    """
    script = settings.target.rpartition(":")[0] or settings.target
    taken = {"the target": script}
    for name in _INPUTS:
        taken[f"--{name.replace('_', '-')}"] = getattr(settings, name)
    taken = {words: path for words, path in taken.items() if path}
    for option, (path, _) in outputs.items():
        if path is not None:
            _check(option, path, taken.items())
            taken[option] = path
    for path, text in outputs.values():
        if path is None:
            print_result(text, nl=False)
        else:
            write_file(path, text)


def write_file(path: str, text: str) -> None:
    """Write a file. An existing one is replaced, with its mode, when the new one is complete.

    Raises :exc:`~hr_prometheus.errors.ServingError` if the operating system refuses it.
    """
    try:
        place = os.path.realpath(path)
        if os.path.isfile(place) or not os.path.exists(place):
            _replace(place, text)
        else:  # a device, or a pipe
            _write(place, text)
    except OSError as error:
        raise ServingError(f'"{path}" cannot be written: {error.strerror}. Choose another file.') from error


def _check(option: str, path: str, taken: Iterable[tuple[str, str | None]]) -> None:
    for words, other in taken:
        if other is not None and _is_same(path, other):
            raise ConfigurationError(f'{option} "{path}" is the file of {words} "{other}". Choose another file.')
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and _is_same(path, file):
            raise ConfigurationError(f'{option} "{path}" is the file of the module "{name}". Choose another file.')


def _replace(path: str, text: str) -> None:
    if os.path.exists(path):
        with open(path, "r+b"):  # what may not be written may not be replaced either
            pass
    new = f"{path}.{os.getpid()}.new"
    try:
        _write(new, text)
        if os.path.exists(path):
            shutil.copymode(path, new)
        os.replace(new, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(new)
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EBUSY):
            raise
        _write(path, text)  # its directory may not be written, or it is mounted by itself


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _is_same(path: str, other: str) -> bool:
    """Whether two paths lead to one file, also if it does not exist yet."""
    with suppress(OSError):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)
