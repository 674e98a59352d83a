"""The types of the parameters: numbers within bounds, and what a configuration file makes relative to itself."""

from __future__ import annotations

import glob
import os
from contextlib import suppress
from math import inf
from typing import Any

import click

_LONGEST = 1e9  # seconds


class WholeNumber(click.IntRange):
    """A whole number within bounds. An error names them, and the number of *example*."""

    def __init__(self, least: int, most: int | None = None, *, example: int) -> None:
        super().__init__(least, most)
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            bounds = f"from {self.min} on" if self.max is None else f"from {self.min} to {self.max}"
            self.fail(f"expected a whole number {bounds}, for example {self.example}.", param, ctx)


class Seconds(click.FloatRange):
    """A finite number of seconds. An error names the bounds, and the number of *example*."""

    def __init__(self, *, example: float, least: float = 0, min_open: bool = False) -> None:
        super().__init__(least, min_open=min_open)
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number of at most 30 years."""
        try:
            number = super().convert(value, param, ctx)
        except click.BadParameter:
            number = inf
        if not number <= _LONGEST:  # as NaN is not
            bounds = "greater than 0" if self.min_open else f"from {self.min:g} on"
            text = f"expected a number of seconds, {bounds} and without a unit, for example {self.example:g}."
            self.fail(text, param, ctx)
        return number


class OptionalChoice(click.Choice):  # type: ignore[type-arg]  # in click 8.1 it is not generic
    """One of several choices. The option alone is the first one, as ``true`` is in a variable or a file; ``false`` is none."""

    @property
    def bare(self) -> str:
        """The choice that the option is without a value."""
        return str(self.choices[0])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the choice, or ``None``."""
        if value not in self.choices:
            with suppress(click.BadParameter):
                return self.bare if click.BOOL.convert(value, param, ctx) else None
        return super().convert(value, param, ctx)


class FilePath(click.Path):
    """The path of a file or directory. In a configuration file it is relative to that one's directory."""

    def __init__(self) -> None:
        super().__init__(readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. The text of a certificate or a key, as ``$(cat FILE)`` has it, is none."""
        if "-----BEGIN" in str(value):
            self.fail("it is PEM text, and no path. Expected the path of a file with it.", param, ctx)
        return super().convert(value, param, ctx)

    def resolve(self, text: str, directory: str) -> str:
        """Return the path that *text* means in a configuration file in a *directory*."""
        return os.path.join(directory, text)


class PathPattern(click.types.StringParamType):
    """A shell pattern of names or, with a slash, of paths: these are relative as that of :class:`FilePath` is."""

    def resolve(self, text: str, directory: str) -> str:
        """Return the pattern that *text* means in a configuration file in a *directory*, whose own name is no pattern."""
        return os.path.join(glob.escape(directory), text) if os.sep in text else text


class TargetName(click.types.StringParamType):
    """A target. The path of a file is relative as that of :class:`FilePath` is."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002
        """Return what can be done about one that is missing."""
        return "Type it, or have it as target in a configuration file."

    def resolve(self, text: str, directory: str) -> str:
        """Return the target that *text* means in a configuration file in a *directory*."""
        module = text.rpartition(":")[0] or text
        return os.path.join(directory, text) if module.endswith(".py") or os.sep in module else text
