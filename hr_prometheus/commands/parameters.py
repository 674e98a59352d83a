"""What all options share: an environment variable each, a section of the help, and numbers with bounds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, TypeAlias

import click
from click.core import ParameterSource

_SERVER = "Where and how the application is served"
_WORKERS = "More than one process"
_METRICS = "Metrics"


_LONGEST = 1e9  # seconds
_TYPED = "hr_prometheus.typed"
_ALIAS = {"fixed_routes_parameters": "fixed_route", "request_monitor": "monitor"}


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

    def __init__(self, *, example: float, min_open: bool = False) -> None:
        super().__init__(0, min_open=min_open)
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number; years are no time to wait for."""
        try:
            number = super().convert(value, param, ctx)
        except click.BadParameter:
            number = inf
        if not number <= _LONGEST:  # as NaN is not
            bounds = "greater than 0" if self.min_open else "from 0 on"
            text = f"expected a number of seconds, {bounds} and without a unit, for example {self.example:g}."
            self.fail(text, param, ctx)
        return number


class Option(click.Option):
    """An option with its environment variable, in one of the sections of ``--help``."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.envvar = "HR_PROMETHEUS_" + self.opts[-1].removeprefix("--").replace("-", "_").upper()
        self.show_envvar = True

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        """Return the value as it was given, and note it for errors."""
        value, source = super().consume_value(ctx, opts)
        ctx.meta.setdefault(_TYPED, {})[self.name] = (self, value, source)
        return value, source

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return how it was given, for an error of click's."""
        hint = super().get_error_hint(ctx) if ctx is None else said(self.name or "", ctx)
        return hint or self.opts[-1]


def said(
    name: str, ctx: click.Context, is_meant: Callable[[str], bool] = lambda _value: False, own: str = ""
) -> str | None:
    """Return how the option of a setting was given: the option or its variable, and its value; ``None`` if it was not.

    Of several values it is the first that is meant. *own* is how the setting calls itself on the command line.
    """
    option, value, source = ctx.meta.get(_TYPED, {}).get(_ALIAS.get(name, name), (None, None, None))
    if source is ParameterSource.ENVIRONMENT:
        text = f'{option.envvar}="{os.environ[option.envvar]}"'
        return f"{text} (values are separated by spaces)" if option.multiple else text
    if source is not ParameterSource.COMMANDLINE:
        return None
    if option.is_flag or (own.startswith("--") and '"' not in own):
        return str(own or option.opts[-1])
    values = list(value) if option.multiple else [value]
    return f'{option.opts[-1]} "{next(filter(is_meant, values), values[0])}"'


def variables(text: str, ctx: click.Context) -> list[str]:
    """Return the variables, with their values, from which words of *text* come."""
    return [
        f'{option.envvar}="{value}"'
        for option, value, source in ctx.meta.get(_TYPED, {}).values()
        if source is ParameterSource.ENVIRONMENT
        and re.search(rf"(?<![\w.-]){re.escape(str(value))}(?![\w-]|\.\w)", text)
    ]


class Command(click.Command):
    """A command whose help lists its options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        sections: dict[str, list[tuple[str, str]]] = {_SERVER: [], _WORKERS: [], _METRICS: [], "Other": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections[getattr(parameter, "section", "Other")].append(record)
        for section, records in sections.items():
            if records:  # click can write no empty list
                with formatter.section(section):
                    formatter.write_dl(records)


#: What gives a command an option or an argument.
Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]


def server_option(*names: str, **attributes: Any) -> Decorator:
    """Give a command an option of where and how the application is served."""
    return click.option(*names, cls=Option, section=_SERVER, **attributes)


def workers_option(*names: str, **attributes: Any) -> Decorator:
    """Give a command an option of the workers."""
    return click.option(*names, cls=Option, section=_WORKERS, **attributes)


def metrics_option(*names: str, **attributes: Any) -> Decorator:
    """Give a command an option of the metrics."""
    return click.option(*names, cls=Option, section=_METRICS, **attributes)
