"""The configuration file: which one it is, and what is in it."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hr_prometheus.commands.toml_lines import deepest_line, key_lines
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.origins import place_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hr_prometheus.commands.toml_lines import Path

TABLE = ("tool", "hr-prometheus")
PROJECT_FILE = "pyproject.toml"
#: In the order in which they are looked for in a directory.
FILES = ("hr-prometheus.toml", PROJECT_FILE)


@dataclass(frozen=True)
class ConfigFile:
    """A file's settings: the *table* that has them, and the *lines* of its keys, by their paths in it."""

    path: str
    table: Mapping[str, Any]
    lines: Mapping[Path, int] = field(repr=False)

    @property
    def directory(self) -> str:
        """The directory that paths in the file are relative to; empty for the current one, as if it is a shell's pipe."""
        return os.path.dirname(self.path) if os.path.isfile(self.path) else ""

    def line_of(self, *keys: str | int) -> int:
        """Return the line of the key or item with this path, or of what it is in; 0 is not known."""
        return next((self.lines[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in self.lines), 0)

    def place_of(self, *keys: str | int) -> str:
        """Return the words for the line of a key or an item."""
        return place_in(self.path, self.line_of(*keys))


def find_config_file() -> ConfigFile | None:
    """Return the nearest file with settings, in the current directory or above it.

    Above it those directories are passed over that everyone may write to, such as ``/tmp``, since settings can run code.
    Raises :exc:`~hr_prometheus.errors.ConfigurationError` as :func:`read_config_file` does, and for an ``hr-prometheus.toml`` that is
    a link to nothing.
    """
    for directory in _directories():
        for name in FILES:
            path = os.path.join(directory, name)
            is_broken = name != PROJECT_FILE and os.path.islink(path) and not os.path.exists(path)
            if is_broken or os.path.isfile(path):
                path = os.path.relpath(path)
                file = _read(path, f'"{path}"', is_chosen=False)
                if file is not None:
                    return file
    return None


def read_config_file(path: str, subject: str) -> ConfigFile:
    """Read a file that was chosen. *subject* names it in errors.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if it cannot be read, is not valid TOML, or has no table for settings.
    """
    file = _read(path, subject, is_chosen=True)
    if file is None:
        raise ConfigurationError(f"{subject} has no table [{'.'.join(TABLE)}]. Expected the settings in one.")
    return file


def _directories() -> Iterator[str]:
    try:
        directory = os.getcwd()
    except OSError:  # it does not exist any more
        return
    yield directory
    while (parent := os.path.dirname(directory)) != directory:
        directory = parent
        try:
            is_open = os.stat(directory).st_mode & stat.S_IWOTH
        except OSError:
            is_open = True
        if not is_open:
            yield directory


def _read(path: str, subject: str, *, is_chosen: bool) -> ConfigFile | None:
    """Return the file, or ``None`` if it is that of a project which has no settings of ours in it."""
    is_project = os.path.basename(path) == PROJECT_FILE
    advice = " Correct it." if is_chosen else " Correct it, or leave it out with --no-config."
    try:
        with open(path, "rb") as file:
            content = file.read()
        if is_project and not re.search(rb"hr.?prometheus", content):
            return None  # whatever is wrong with it
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        document = tomllib.loads(text)
        lines = key_lines(text)
    except OSError as error:
        raise ConfigurationError(f"{subject} cannot be read: {error.strerror}.{advice}") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{subject} is not valid TOML: line {line} is not UTF-8.{advice}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{subject} is not valid TOML: {_problem(text, error)}.{advice}") from error
    if not is_project:
        return ConfigFile(path, document, lines)
    table = _project_table(path, document, lines)
    own_lines = {keys[len(TABLE) :]: line for keys, line in lines.items() if keys[: len(TABLE)] == TABLE}
    return None if table is None else ConfigFile(path, table, own_lines)


def _problem(text: str, error: ValueError | RecursionError) -> str:
    """Return what is wrong with a text. Where only Python has a limit, its own words have no line."""
    if isinstance(error, RecursionError):
        return f"line {deepest_line(text)} is nested too deeply"
    number = None if isinstance(error, tomllib.TOMLDecodeError) else re.search(r"\d[\d_]{4000,}", text)
    if number is None:
        return str(error).rstrip(".")
    return f"line {text.count(chr(10), 0, number.start()) + 1} has a number of {len(number[0])} digits"


def _project_table(path: str, document: Mapping[str, Any], lines: Mapping[Path, int]) -> Any:
    """Return the table with our settings, or ``None``."""
    tools = document.get("tool")
    tools = tools if isinstance(tools, dict) else {}
    for name in tools:
        if name != TABLE[1] and re.sub(r"[-_.]", "", name.lower()) == "hrprometheus":
            place = place_in(path, lines.get((TABLE[0], name), 0))
            raise ConfigurationError(f"[tool.{name}] {place} is not read. Expected [{'.'.join(TABLE)}].")
    table = tools.get(TABLE[1])
    if table is not None and not isinstance(table, dict):
        place = place_in(path, lines.get(TABLE, 0))
        raise ConfigurationError(
            f"{'.'.join(TABLE)} {place} is not a table. Expected [{'.'.join(TABLE)}], and settings below it."
        )
    return table
