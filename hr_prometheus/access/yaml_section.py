"""The mappings of a YAML file, with the keys that they may have, and the lines for errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hr_prometheus.errors import ConfigurationError, did_you_mean
from hr_prometheus.origins import place_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from yaml.nodes import Node

_NULL, _BOOLEAN, _WHOLE = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int"))
_LONGEST_KEY = 60
_MOST_DIGITS = 18
_FLAGS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


class Section:
    """A mapping of a *file*, called *name*, with its *line*, in errors. A *node* that is None, or null, is an empty one.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if it is no mapping, or has a key twice, or one that is not among
    *keys*; None allows all, and errors show none of them.
    """

    def __init__(
        self, file: str, node: Node | None, keys: Sequence[str] | None, *, name: str = "", line: int = 0
    ) -> None:
        from yaml.nodes import MappingNode, ScalarNode  # noqa: PLC0415  # an extra

        self.file, self.name, self._line = file, name, line
        self._hides_keys = keys is None
        self._nodes: dict[str, Node] = {}
        self._lines: dict[str, int] = {}
        if _is_null(node):
            return
        if not isinstance(node, MappingNode):
            raise ConfigurationError(f"{self.subject} is no mapping. Expected lines of KEY: VALUE.")
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                raise ConfigurationError(f"{_place(file, line)} has a key that is no text.")
            key = str(key_node.value)
            problem = ""
            if keys is not None and key not in keys:
                problem = f" is no setting.{did_you_mean(key, keys)} Expected one of {', '.join(keys)}."
            elif key in self._nodes:
                problem = f" is there for the second time, after line {self._lines[key]}. Leave one of them out."
            self._nodes[key], self._lines[key] = value, line
            if problem:
                raise self.error(key, problem)

    @property
    def subject(self) -> str:
        """What errors about the whole call it."""
        return f"{self.name} {place_in(self.file, self._line)}" if self.name else _place(self.file)

    def __contains__(self, key: str) -> bool:
        return key in self._nodes and not _is_null(self._nodes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def subject_of(self, key: str, value: str | None = None) -> str:
        """Return what errors call a key, with a *value* in quotes."""
        quoted = "" if value is None else f' "{value}"'
        return f"{self._name_of(key)}{quoted} {place_in(self.file, self._lines[key])}"

    def error(self, key: str, problem: str, value: str | None = None) -> ConfigurationError:
        """Return the error for a key, with a *value* that may be shown."""
        return ConfigurationError(self.subject_of(key, value) + problem)

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
            raise self.error(key, " is no list. Expected lines of - VALUE.")
        return [self._text(key, each) for each in node.value]

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a flag."""
        if key not in self:
            return default
        text = self.text(key)
        if self._nodes[key].tag != _BOOLEAN:
            raise self.error(key, " is neither true nor false.", text)
        return _FLAGS[text.lower()]

    def number(self, key: str) -> int:
        """Return a whole number from 0 on; 0 if there is none."""
        text = self.text(key)
        if text and (self._nodes[key].tag != _WHOLE or not text.isdecimal()):
            raise self.error(key, " is no whole number from 0 on.", text)
        if len(text) > _MOST_DIGITS:
            raise self.error(key, f" has more than {_MOST_DIGITS} digits.")
        return int(text or 0)

    def _name_of(self, key: str) -> str:
        # A secret may stand where its name belongs.
        if self._hides_keys or len(key) > _LONGEST_KEY or not key.isprintable():
            return f"An entry of {self.name}" if self.name else "An entry"
        return f"{self.name}.{key}" if self.name else key

    def _text(self, key: str, node: Node) -> str:
        from yaml.nodes import ScalarNode  # noqa: PLC0415  # an extra

        if not isinstance(node, ScalarNode):
            raise self.error(key, " is no text.")
        return "" if _is_null(node) else str(node.value)


def read_section(file: str, text: bytes, keys: Sequence[str]) -> Section:
    """Return the mapping that a YAML file with this *text* is. Raises :exc:`~hr_prometheus.errors.ConfigurationError`."""
    import yaml  # noqa: PLC0415  # an extra

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = 0 if error.problem_mark is None else error.problem_mark.line + 1
        problem = re.sub("(alias|tag handle) .*", r"\1", str(error.problem))  # what follows may be part of a secret
        raise ConfigurationError(f"{_place(file, line)} is no YAML: {problem}.") from None
    except yaml.YAMLError:
        raise ConfigurationError(f"{_place(file)} is no YAML: it has characters that YAML does not allow.") from None
    except RecursionError:
        raise ConfigurationError(f"{_place(file)} is nested too deeply.") from None
    return Section(file, node, keys)


def _is_null(node: Node | None) -> bool:
    return node is None or node.tag == _NULL


def _place(file: str, line: int = 0) -> str:
    return f"line {line} of {file}" if line else f'"{file}"'
