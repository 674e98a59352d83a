"""Where a setting was typed, and the sentences that quote it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hr_prometheus.errors import SettingError
from hr_prometheus.quotes import hide_secret, quote
from hr_prometheus.written_forms import parse_allowed_values, parse_buckets, parse_fixed_routes, parse_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The rank of what is on the command line.
TYPED = 3


@dataclass(frozen=True)
class Origin:
    """Where a setting was typed: after an *option*, as the *text* of an environment *variable*, or in a *file*.

    *values* are as they were typed; that of a flag is ``true`` or ``false``. The text of a variable that *is_list* has them
    separated by spaces. *lines* are those of the values in the file, and a single one if it is a file of variables; 0 is not
    known.
    """

    option: str
    values: tuple[str, ...] = ()
    variable: str = ""
    text: str = ""
    is_list: bool = False
    file: str = ""
    lines: tuple[int, ...] = ()
    #: Whether each value is the path of a file, for which a secret may be mistaken.
    is_path: bool = False
    #: Whether it follows from the setting that was typed there, so that no error is about it.
    is_derived: bool = False

    @property
    def rank(self) -> int:
        """Which of two settings wins: one on the command line (3), else in a variable (2), else in a file (1)."""
        return 2 if self.variable else 1 if self.file else TYPED

    @property
    def name(self) -> str:
        """The option alone, the variable with its whole value, or the name in the file with its line."""
        place = f" {place_in(self.file, *self.lines[:1])}" if self.file else ""
        if self.variable:
            quoted = self._quote(self.text)
            separator = "=" if quoted.startswith('"') else " "
            return f"{self.variable}{separator}{quoted}{' (values are separated by spaces)' * self.is_list}{place}"
        return self.option.removeprefix("--") + place if self.file else self.option

    def quote(self, value: str | None = None) -> str:
        """Return the option with this one of its values, by default the first, or the variable with all of them."""
        if self.variable or not self.values:
            return self.name
        value = self.values[0] if value is None else value
        quoted = self._quote(value)
        if not self.file:
            return f"{self.option} {quoted}"
        return f"{self.option.removeprefix('--')} {quoted} {place_in(self.file, self.lines[self.values.index(value)])}"

    def hide(self, value: str) -> str:
        """Return one of its values, or its length in words if it may be a secret."""
        return hide_secret(value, is_path=self.is_path)

    def _quote(self, value: str) -> str:
        return quote(value, is_path=self.is_path)


def place_in(file: str, line: int = 0) -> str:
    """Return the words for a line of a file, or for the file as a whole."""
    return f"on line {line} of {file}" if line else f"in {file}"


#: Read values of repeatable options, to find out which of them an error is about.
_PARSERS: dict[str, Callable[[list[str]], Any]] = {
    "fixed_routes_parameters": parse_fixed_routes,
    "allow_values": parse_allowed_values,
    "extra_labels": parse_labels,
    "buckets": parse_buckets,
    "objective": lambda texts: [text.rpartition("=")[0] for text in texts],
}


def sentence_of(error: BaseException, origins: Mapping[str, Origin]) -> str:
    """Return an error's sentence for the person who typed the settings: it quotes the option, the variable or the file.

    A policy that was not typed is the application's own, and keeps the words of the library.
    """
    if not isinstance(error, SettingError):
        return str(error)
    option = error.subject if error.subject.startswith("--") else ""
    origin, other = (origins.get(_OPTION_NAMES.get(name, name)) for name in (error.setting, error.contradicts))
    contradicts = "" if other is None else other.name if other.file else other.variable or other.option
    values = [value for value in origin.values if _is_about(error, value)] if origin else []
    if error.parts and not values:
        return str(error)
    has_value = not option or '"' in option or "(" in option  # which quotes a value, or counts its characters
    if origin is None or not (has_value or origin.variable or origin.file):
        return error.command_sentence(option, contradicts)
    return error.command_sentence(origin.quote(next(iter(values), None)) if has_value else origin.name, contradicts)


#: The options of those settings that the library names otherwise.
_OPTION_NAMES = {"fixed_routes_parameters": "fixed_route", "extra_labels": "label", "exclude_methods": "exclude_method"}


def _is_about(error: SettingError, value: str) -> bool:
    """Whether an error is about this *value* of a repeatable option, so that it has the error's parts."""
    if value in error.parts:
        return True
    parse = _PARSERS.get(error.setting)
    parsed = () if parse is None else parse([value])
    for part in error.parts:
        if part not in parsed:
            return False
        parsed = parsed[part] if isinstance(parsed, dict) else ()
    return bool(error.parts)
