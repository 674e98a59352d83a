"""The files that the commands write: whole or not at all, and never over what was read."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.commands.streams import show
from hr_prometheus.errors import ConfigurationError, ServingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hr_prometheus.settings import Settings


def check_outputs(outputs: Mapping[str, str | None], inputs: Mapping[str, str | None]) -> None:
    """Check that each file, given by the option that names it, is another one than the others and than what was read.

    *inputs* are given by words for them. The files of imported modules are always among them.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for two of one file, however it is spelt or linked to.
    """
    taken = {words: path for words, path in inputs.items() if path}
    for option, path in outputs.items():
        if path is None:
            continue
        for words, other in taken.items():
            if _is_same(path, other):
                raise ConfigurationError(f'{option} "{path}" is the file of {words} "{other}". Choose another file.')
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and _is_same(path, file):
                raise ConfigurationError(f'{option} "{path}" is the file of the module "{name}". Choose another file.')
        taken[option] = path


def write(path: str, text: str) -> None:
    """Write a file. An existing one is replaced, with its mode, when the new one is complete.

    Raises :exc:`~hr_prometheus.errors.ServingError` if the operating system refuses it.
    """
    try:
        place = os.path.realpath(path)
        if os.path.exists(place):
            with open(
                place, "r+b" if os.path.isfile(place) else "ab"
            ):  # what may not be written is not replaced either
                pass
        if os.path.exists(place) and not os.path.isfile(place):  # a device, or a pipe
            _write(place, text)
        else:
            _replace(place, text)
    except OSError as error:
        raise ServingError(f'"{path}" cannot be written: {error.strerror}. Choose another file.') from error


def write_all(outputs: dict[str, str | None], texts: list[str], settings: Settings) -> None:
    """Write each text to the file that its option names, the first one to standard output if it names none."""
    script = settings.target.rpartition(":")[0] or settings.target
    check_outputs(outputs, {"the target": script, "--certfile": settings.certfile, "--keyfile": settings.keyfile})
    for path, text in zip(outputs.values(), texts, strict=False):
        if path is None:
            show(text, nl=False)
        else:
            write(path, text)


def _replace(path: str, text: str) -> None:
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
