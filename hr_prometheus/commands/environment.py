"""The environment: our variables in it, and the files that set some for us and the application."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import click

from hr_prometheus.commands.streams import print_warning
from hr_prometheus.errors import ConfigurationError, did_you_mean
from hr_prometheus.origins import place_in

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE_PREFIX = "HR_PROMETHEUS_"
#: A line, or several if its value is in quotes: empty, a comment, or NAME=VALUE with or without a comment.
_ENTRY = re.compile(
    r"""
    [^\S\n]*
    (?:
      (?:export[^\S\n]+)? (?P<name>[\w.-]+) [^\S\n]*=[^\S\n]*
      (?: '(?P<literal>[^']*)' | "(?P<text>(?:\\.|[^"\\])*)" | (?P<bare>(?!['"])(?:(?!(?<!\S)\#)[^\n])*) )
      [^\S\n]*
    )?
    (?:\#[^\n]*)? (?:\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def warn_of_unknown_variables(places: Mapping[str, str], command: click.Command) -> None:
    """Warn of each variable that looks like a setting of a command in the group *command* and is none.

    *places* are the words that follow the names.
    """
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    options = [option for each in commands for option in each.params]
    variables = {option.envvar for option in options if isinstance(option.envvar, str)}
    for name in sorted(places.keys() - variables):
        if name.startswith(VARIABLE_PREFIX):
            settings = sorted(each.removeprefix(VARIABLE_PREFIX) for each in variables)
            hint = did_you_mean(name.removeprefix(VARIABLE_PREFIX), settings, prefix=VARIABLE_PREFIX)
            print_warning(f"{name}{places[name]} is not a setting of hr-prometheus.{hint}")


def load_env_file(path: str, subject: str) -> dict[str, int]:
    """Set the variables of a file that are not set yet. Return the lines of those that it has set.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError`, about *subject* if the file cannot be read.
    """
    try:
        # An environment holds bytes of any kind.
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read().removeprefix("\ufeff")
    except OSError as error:
        raise ConfigurationError(f"{subject}: {error.strerror}. Expected a file with lines of NAME=VALUE.") from error
    lines = {}
    for name, (value, line) in parse_env_file(text, path).items():
        if name not in os.environ:
            os.environ[name] = value
            lines[name] = line
    return lines


def parse_env_file(text: str, path: str) -> dict[str, tuple[str, int]]:
    """Return the variables in the *text* of a file, with their values and lines; of several with one name the last.

    Nothing is substituted in a value. One in double quotes may have the escapes of a shell, and ``\\n``, ``\\r`` and
    ``\\t``; one in quotes of either kind may have several lines. Raises
    :exc:`~hr_prometheus.errors.ConfigurationError`, which shows no value, since it may be a secret.
    """
    variables = {}
    position, line = 0, 1
    while position < len(text):
        entry = _ENTRY.match(text, position)
        if entry is None or "\0" in entry[0]:
            raise ConfigurationError(
                f"the setting {place_in(path, line)} is not understood. Expected NAME=VALUE, with quotes around a value that has "
                "quotes, line breaks, or a # after a space."
            )
        position = entry.end()
        if entry["name"]:
            value = (entry["literal"] or "") + _unescape(entry["text"] or "") + (entry["bare"] or "").rstrip()
            variables[entry["name"]] = value, line
        line += entry[0].count("\n")
    return variables


def _unescape(text: str) -> str:
    return re.sub(r'\\([nrt"\\$`])', lambda match: _ESCAPES.get(match[1], match[1]), text)
