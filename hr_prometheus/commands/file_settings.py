"""The settings in a configuration file: its keys and values, checked against the options and arguments of the commands."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import date, time
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.commands.config_file import PROJECT_FILE, TABLE
from hr_prometheus.commands.parameters import settable_parameters
from hr_prometheus.commands.types import FilePath, OptionalChoice
from hr_prometheus.errors import ConfigurationError, SettingError, did_you_mean
from hr_prometheus.origins import Origin, sentence_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hr_prometheus.commands.config_file import ConfigFile
    from hr_prometheus.commands.parameters import Parameter

    Parameters = Mapping[str, Parameter]

_LONGEST = 60  # characters of a value in an error
_CONTROL_CHARACTERS = re.compile(r"[\0-\x1f\x7f]")
#: The options that no file can have, because they choose it, as they are typed.
_CHOICES = {"config": "--config FILE", "no-config": "--no-config"}


def read_settings(file: ConfigFile, commands: Mapping[str, click.Command], name: str) -> dict[str, Origin]:
    """Return what a file sets for the command with this *name*, by its keys.

    A table for the command wins over what is for all. The other tables are checked as well. Raises
    :exc:`~hr_prometheus.errors.ConfigurationError` for a key that is no setting, and for a value that does not fit it.
    """
    by_command = {each: settable_parameters(command) for each, command in commands.items()}
    of_all = {key: parameter for parameters in by_command.values() for key, parameter in parameters.items()}
    shared: dict[str, Origin] = {}
    own: dict[str, Origin] = {}
    for key, value in file.table.items():
        entry = _Entry(file, (key,), value)
        if key in by_command and isinstance(value, dict):
            table = {inner: _origin(entry.member(inner), by_command[key], by_command) for inner in value}
            own = table if key == name else own
        else:
            shared[key] = _origin(entry, of_all, by_command)
    return {key: origin for key, origin in {**shared, **own}.items() if key in by_command[name]}


@dataclass(frozen=True)
class _Entry:
    """A value in a file, and the path of its key there."""

    file: ConfigFile
    path: tuple[str, ...]
    value: Any
    #: That of an item of an array.
    number: int | None = None

    @property
    def _position(self) -> tuple[str | int, ...]:
        return self.path if self.number is None else (*self.path, self.number)

    @property
    def line(self) -> int:
        """The line of the key, or of the item."""
        return self.file.line_of(*self._position)

    @property
    def text(self) -> str:
        """The value as it is written, or the beginning of it."""
        if isinstance(self.value, date | time):
            return str(self.value)
        try:
            text = json.dumps(self.value, ensure_ascii=False, default=str)
        except (ValueError, RecursionError):  # a number of thousands of digits, a table in hundreds of others
            return "…"
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

    def member(self, key: str) -> _Entry:
        """Return the value of a key in this table."""
        return replace(self, path=(*self.path, key), value=self.value[key])

    def items(self) -> list[_Entry]:
        """Return the values in this array."""
        return [replace(self, value=value, number=number) for number, value in enumerate(self.value)]

    def error(self, problem: str) -> ConfigurationError:
        """Return an error about the value."""
        from hr_prometheus.status.address import hide_passwords  # seldom needed

        sentence = f"{'.'.join(self.path)} {self.text} {self.file.place_of(*self._position)}: {problem}"
        return ConfigurationError(hide_passwords(sentence))


def _origin(entry: _Entry, parameters: Parameters, by_command: Mapping[str, Parameters]) -> Origin:
    """Return the texts of a setting, with their lines."""
    parameter = parameters.get(entry.path[-1])
    if parameter is None:
        raise _unknown_key(entry, parameters, by_command)
    texts, lines = [], []
    try:
        for text, item in _texts(entry, parameter):
            try:
                parameter.type.convert(text, parameter, None)
            except click.BadParameter as error:
                raise item.error(error.message) from error
            texts.append(parameter.resolve(text, entry.file.directory))
            lines.append(item.line)
    except RecursionError as error:
        raise entry.error("it is nested too deeply.") from error
    origin = Origin(
        parameter.option,
        tuple(texts),
        file=entry.file.path,
        lines=tuple(lines or [entry.line]),
        is_path=isinstance(parameter.type, FilePath),
    )
    if parameter.parse is not None:
        try:
            parameter.parse(texts if parameter.is_list else texts[0])
        except SettingError as error:
            raise ConfigurationError(sentence_of(error, {parameter.setting: origin})) from error
    return origin


def _texts(entry: _Entry, parameter: Parameter) -> Iterator[tuple[str, _Entry]]:
    """Yield the texts that a value is short for, as they are typed on the command line, each with what it is written as."""
    is_array = isinstance(entry.value, list) and not (parameter.takes_numbers and _are_numbers(entry.value))
    if parameter.takes_table and isinstance(entry.value, dict):
        yield from _texts_of_table(entry, parameter)
    elif parameter.is_list and is_array:
        for item in entry.items():
            yield _text(item, parameter), item
    elif parameter.is_list and not parameter.takes_numbers:
        is_number = isinstance(parameter.type, click.types.IntParamType)
        example = f": {entry.path[-1]} = [{entry.text}]" if isinstance(entry.value, int if is_number else str) else ""
        items = "whole numbers" if is_number else "strings"
        raise entry.error(f"expected an array of {items}{' or a table' * parameter.takes_table}{example}.")
    else:
        yield _text(entry, parameter), entry


def _texts_of_table(entry: _Entry, parameter: Parameter, prefix: str = "") -> Iterator[tuple[str, _Entry]]:
    """Yield ``NAME=VALUE`` or ``NAME=VALUE,VALUE`` for each entry of a table, ``NAME.PARAM=VALUE`` for one of a table in it."""
    for key in entry.value:
        if _CONTROL_CHARACTERS.search(key):
            raise entry.error("a name cannot have control characters.")
        member, name = entry.member(key), f"{prefix}{key}"
        if "=" in key:
            raise member.error('a name cannot have "=".')
        if isinstance(member.value, dict):
            yield from _texts_of_table(member, parameter, f"{name}.")
        elif isinstance(member.value, list):
            texts = [_text(item, parameter) for item in member.items()]
            if any("," in text for text in texts):
                raise member.error("a value in an array cannot have a comma.")
            yield f"{name}={','.join(texts)}", member
        else:
            yield f"{name}={_text(member, parameter)}", member


def _text(entry: _Entry, parameter: Parameter) -> str:
    """Return a value as it is typed on the command line."""
    value = entry.value
    is_flag = isinstance(parameter.type, click.types.BoolParamType)
    if isinstance(value, bool) and (is_flag or isinstance(parameter.type, OptionalChoice)):
        return entry.text
    if isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType):
        return entry.text  # a string has its quotes, so that it is no number
    numbers = value if isinstance(value, list) and parameter.is_list and entry.number is None else [value]
    if parameter.takes_numbers and _are_numbers(numbers):
        return ",".join(map(str, numbers))
    if is_flag or not isinstance(value, str):
        raise entry.error(f"expected {_expected(entry, parameter)}.")
    if parameter.takes_numbers and not parameter.is_list and value.isdecimal():
        raise entry.error(f"expected a number, without quotes: {entry.path[-1]} = {value}.")
    if not (value or parameter.takes_empty):
        raise entry.error("expected a string that is not empty.")
    if "\0" in value if parameter.nargs == -1 else _CONTROL_CHARACTERS.search(value):
        raise entry.error("expected a string without control characters.")
    return value


def _expected(entry: _Entry, parameter: Parameter) -> str:
    """Return words for the kinds of values that a parameter has."""
    if isinstance(parameter.type, click.types.BoolParamType):
        return "true or false, without quotes"
    if isinstance(parameter.type, OptionalChoice):
        return "true, false, " + " or ".join(f'"{choice}"' for choice in parameter.type.choices)
    return f"a string{' or a number' * parameter.takes_numbers}{_example(entry, parameter)}"


def _example(entry: _Entry, parameter: Parameter) -> str:
    """Return how a number or a date is written as a string, or nothing for what is neither."""
    value = entry.value
    is_time = isinstance(value, date | time)
    if not (is_time or _are_numbers([value])):
        return ""
    # The only number that people write in octal.
    typed = f"{value:o}" if parameter.key == "unix-mode" and type(value) is int else value
    kind = f", not a {'date' if isinstance(value, date) else 'time'}" * is_time
    return kind + f": {entry.path[-1]} = " + (f'"{typed}"' if entry.number is None else f'["{typed}"]')


def _are_numbers(values: list[Any]) -> bool:
    """Whether they are numbers that can be written: Python refuses those of thousands of digits."""
    return bool(values) and all(type(each) is float or (type(each) is int and abs(each) < 1e300) for each in values)


def _unknown_key(entry: _Entry, parameters: Parameters, by_command: Mapping[str, Parameters]) -> ConfigurationError:
    key, is_top = entry.path[-1], len(entry.path) == 1
    others = [f'"{name}"' for name, settings in by_command.items() if key in settings]
    negated = [each.key for each in parameters.values() if f"--{key}" in each.secondary_opts]
    if entry.path == TABLE[:1]:
        hint = f" Only in {PROJECT_FILE} the settings are in [{'.'.join(TABLE)}]."
    elif is_top and key in by_command:
        hint = f" Expected a table with settings for the command {key}."
    elif negated:
        hint = f" Write {negated[0]} = false."
    elif key in _CHOICES:
        hint = f" It chooses the file. Type it on the command line: {_CHOICES[key]}."
    elif others:
        hint = f" It is one of {', '.join(others)}."
    else:
        hint = did_you_mean(key, [*parameters, *by_command] if is_top else parameters)
    owner = "hr-prometheus" if is_top else f'"{entry.path[0]}"'
    place = entry.file.place_of(*entry.path)
    return ConfigurationError(f"{json.dumps(key, ensure_ascii=False)} {place} is not a setting of {owner}.{hint}")
