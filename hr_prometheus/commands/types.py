"""The types of the parameters: numbers within bounds."""

from __future__ import annotations

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
