"""The mappings of a YAML file, with the keys that they may have, and the lines for errors.

Errors show a key or a value only if it is nearly an expected one, or a short number: anything else may be a secret.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from typing import TYPE_CHECKING

from hr_prometheus.errors import ConfigurationError, did_you_mean
from hr_prometheus.origins import place_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from yaml.nodes import Node

_NULL, _BOOLEAN, _WHOLE, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "merge"))
_MOST_DIGITS = 18
#: What may be a misspelled name; it is one if it is near a name that is expected.
_WORD = re.compile(r"[\w-]{1,60}", re.ASCII)
_NUMBER = re.compile(r"-?[\d.]{1,6}[a-z]{0,3}|", re.ASCII)
#: What PyYAML quotes of a text, which may be part of a secret.
_QUOTED = re.compile(r"""(?s)(character|alias|handle) (?:'.*'|".*")|, but (?:found|got) .*""")
_FLAGS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


class Section:
    """A mapping of a *file*, called *name*, with its *line*, in errors. A *node* that is None, or null, is an empty one.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if it is no mapping, or has a key twice, or one that is not among
    *keys*; None allows all.
    """

    def __init__(
        self, file: str, node: Node | None, keys: Sequence[str] | None, *, name: str = "", line: int = 0
    ) -> None:
        from yaml.nodes import MappingNode, ScalarNode  # noqa: PLC0415  # an extra

        self.file, self.name, self._line = file, name, line
        self._keys = keys or ()
        self._nodes: dict[str, Node] = {}
        self._lines: dict[str, int] = {}
        if node is None or _is_null(node):
            return
        if not isinstance(node, MappingNode):
            self._line = line or _line_of(node)
            raise ConfigurationError(f"{self.subject} is not a mapping. Expected lines of KEY: VALUE.")
        for key_node, value in node.value:
            line = _line_of(key_node)
            if not isinstance(key_node, ScalarNode):
                raise ConfigurationError(f"{_place(file, line)} has a key that is not text. Expected KEY: VALUE.")
            key = str(key_node.value)
            if key_node.tag == _MERGE:
                raise ConfigurationError(f"{_place(file, line)} has a merge key (<<). Write its lines out.")
            problem = ""
            if keys is not None and key not in keys:
                problem = f" is not a setting.{did_you_mean(key, keys)} Expected one of {', '.join(keys)}."
            elif key in self._nodes:
                problem = f" is there for the second time, after line {self._lines[key]}. Leave one of them out."
            self._nodes[key], self._lines[key] = value, line
            if problem:
                raise self.error(key, problem)

    @property
    def subject(self) -> str:
        """What errors about the whole call it."""
        return f"{self.name} {place_in(self.file, self._line)}" if self.name else _place(self.file, self._line)

    def __contains__(self, key: str) -> bool:
        return key in self._nodes and not _is_null(self._nodes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def subject_of(self, key: str, quoted: str = "") -> str:
        """Return what errors call a key, with its value as it is *quoted*."""
        return f"{self._name_of(key)}{quoted and f' {quoted}'} {place_in(self.file, self._lines[key])}"

    def error(self, key: str, problem: str) -> ConfigurationError:
        """Return the error for a key."""
        return ConfigurationError(self.subject_of(key) + problem)

    def value_error(self, key: str, value: str, problem: str, expected: Iterable[str] = ()) -> ConfigurationError:
        """Return the error for a *value* of a key, which has it if it is nearly an *expected* one, or a short number."""
        is_harmless = _NUMBER.fullmatch(value) or _is_near(value, expected)
        return ConfigurationError(self.subject_of(key, f'"{value}"' if is_harmless else "") + problem)

    def section(self, key: str, keys: Sequence[str] | None) -> Section:
        """Return the section below a key; an empty one if there is none."""
        return Section(self.file, self._nodes.get(key), keys, name=self._name_of(key), line=self._lines.get(key, 0))

    def text(self, key: str) -> str:
        """Return a text, or that of a number or a flag; empty if there is none."""
        return self._text(key, self._nodes[key]) if key in self else ""

    def texts(self, key: str) -> list[str]:
        """Return a list of texts; an empty one if there is none."""
        from yaml.nodes import SequenceNode  # noqa: PLC0415  # an extra

        node = self._nodes.get(key)
        if node is None or _is_null(node):
            return []
        if not isinstance(node, SequenceNode):
            raise self.error(key, " is not a list. Expected lines of - VALUE.")
        return [self._text(key, each) for each in node.value]

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a flag."""
        if key not in self:
            return default
        text = self.text(key)
        if self._nodes[key].tag != _BOOLEAN or text.lower() not in _FLAGS:
            raise self.value_error(key, text, " is neither true nor false.", _FLAGS)
        return _FLAGS[text.lower()]

    def number(self, key: str) -> int:
        """Return a whole number from 0 on; 0 if there is none."""
        text = self.text(key)
        if text and (self._nodes[key].tag != _WHOLE or not text.isdecimal()):
            raise self.value_error(key, text, " is not a whole number from 0 on.")
        if len(text) > _MOST_DIGITS:
            raise self.error(key, f" has more than {_MOST_DIGITS} digits.")
        return int(text or 0)

    def _name_of(self, key: str) -> str:
        if not _is_near(key, self._keys):
            return f"An entry of {self.name}" if self.name else "An entry"
        return f"{self.name}.{key}" if self.name else key

    def _text(self, key: str, node: Node) -> str:
        from yaml.nodes import ScalarNode  # noqa: PLC0415  # an extra

        if not isinstance(node, ScalarNode):
            raise self.error(key, " is not a text. Expected a single value, not a list or mapping.")
        return "" if _is_null(node) else str(node.value)


def read_section(file: str, text: bytes, keys: Sequence[str]) -> Section:
    """Return the mapping that a YAML file with this *text* is. Raises :exc:`~hr_prometheus.errors.ConfigurationError`."""
    import yaml  # noqa: PLC0415  # an extra

    characters = _decode(file, text)
    try:
        loader = yaml.SafeLoader(characters)
    except yaml.reader.ReaderError as error:
        line = characters.count("\n", 0, error.position) + 1
        raise ConfigurationError(f"{_place(file, line)} has a character that YAML does not allow. Remove it.") from None
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = loader.line if error.problem_mark is None else error.problem_mark.line
        problem = _QUOTED.sub(r"\1", str(error.problem))
        raise _syntax_error(file, line + 1, f": {problem}") from None
    except RecursionError:
        problem = " is nested too deeply. Expected a web configuration."
        raise ConfigurationError(_place(file, loader.line + 1) + problem) from None
    except Exception:  # noqa: BLE001  # of numbers in escapes and directives, with a part of the text
        raise _syntax_error(file, loader.line + 1, "") from None
    finally:
        loader.dispose()
    return Section(file, node, keys)


def _decode(file: str, text: bytes) -> str:
    encoding = "utf-16" if text.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return text.decode(encoding)
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{_place(file, line)} is not text in UTF-8. Expected a web configuration in UTF-8."
        ) from None


def _syntax_error(file: str, line: int, problem: str) -> ConfigurationError:
    advice = "Expected lines of KEY: VALUE, indented alike, with quotes around a value that has special characters."
    return ConfigurationError(f"{_place(file, line)} is not YAML{problem}. {advice}")


def _is_near(text: str, expected: Iterable[str]) -> bool:
    """Whether *text* is one of the *expected* names, or one of them misspelled."""
    names = list(expected)
    return text in names or bool(_WORD.fullmatch(text) and did_you_mean(text, names))


def _line_of(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _is_null(node: Node | None) -> bool:
    return node is None or node.tag == _NULL


def _place(file: str, line: int = 0) -> str:
    return f"line {line} of {file}" if line else f'"{file}"'
