"""The classes of the options and commands: an environment variable for each option, sections of the help, numbers."""

from __future__ import annotations

import os
import re
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

VARIABLE_PREFIX = "HR_PROMETHEUS_"
_OUTPUT = "Output"
_APPLICATION = "Application"
_SERVER = "Where and how the application is served"
_WORKERS = "More than one process"
_METRICS = "Metrics"
_OTHER = "Other"
#: In the order of the help.
_SECTIONS = (_OUTPUT, _APPLICATION, _SERVER, _WORKERS, _METRICS, _OTHER)

_LONGEST = 1e9  # seconds
_GIVEN = "hr_prometheus.given"
#: The options of the settings that have another name in the library.
_OPTIONS = {"fixed_routes_parameters": "fixed_route", "request_monitor": "monitor"}


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
        """Read a number of at most 30 years."""
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
    """An option with an environment variable, in a *section* of the help. *parse* reads a value that is given."""

    def __init__(
        self, *args: Any, section: str, parse: Callable[[Any], object] | None = None, **attributes: Any
    ) -> None:
        if parse is not None:
            attributes["callback"] = lambda _ctx, _option, value: None if value is None else parse(value)
        super().__init__(*args, **attributes)
        self.section = section
        self.envvar = VARIABLE_PREFIX + self._setting.upper()
        self.show_envvar = True

    @property
    def _setting(self) -> str:
        return self.opts[-1].removeprefix("--").replace("-", "_")

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        """Return the value, and keep the text for errors."""
        value, source = super().consume_value(ctx, opts)
        ctx.meta.setdefault(_GIVEN, {})[self._setting] = (self, value, source)
        return value, source

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return the option as it was typed, for an error of click's."""
        return (ctx and quote_option(self._setting, ctx)) or self.opts[-1]


def quote_option(setting: str, ctx: click.Context, is_meant: Callable[[str], bool] = lambda _value: True) -> str | None:
    """Return a setting's option and value as they were typed, or its variable, or ``None`` if it was not given.

    Of a repeatable option's values it is the first one that is meant, or the first one.
    """
    option, value, source = _given(setting, ctx)
    if source is not ParameterSource.COMMANDLINE:
        return quote_variable(setting, ctx)
    name = str(option.opts[-1])
    if option.is_flag:
        return name
    values = list(value) if option.multiple else [value]
    return f'{name} "{next(filter(is_meant, values), values[0])}"'


def quote_variable(setting: str, ctx: click.Context) -> str | None:
    """Return the environment variable that a setting comes from, with its value, or ``None``."""
    option, _, source = _given(setting, ctx)
    if source is not ParameterSource.ENVIRONMENT:
        return None
    text = f'{option.envvar}="{os.environ[option.envvar]}"'
    return f"{text} (values are separated by spaces)" if option.multiple else text


def quote_variables_in(text: str, ctx: click.Context) -> Iterator[str]:
    """Yield the environment variables, with their values, whose values are words of *text*."""
    for option, value, source in ctx.meta.get(_GIVEN, {}).values():
        word = rf"(?<![\w.-]){re.escape(str(value))}(?![\w-]|\.\w)"
        if source is ParameterSource.ENVIRONMENT and re.search(word, text):
            yield f'{option.envvar}="{value}"'


def _given(setting: str, ctx: click.Context) -> tuple[Any, Any, ParameterSource | None]:
    none: tuple[Any, Any, None] = (None, None, None)
    return ctx.meta.get(_GIVEN, {}).get(_OPTIONS.get(setting, setting), none)  # type: ignore[no-any-return]


class Command(click.Command):
    """A command whose help lists its options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        sections: dict[str, list[tuple[str, str]]] = {section: [] for section in _SECTIONS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections[getattr(parameter, "section", _OTHER)].append(record)
        for section, records in sections.items():
            if records:  # click cannot write an empty list
                with formatter.section(section):
                    formatter.write_dl(records)


output_option = partial(click.option, cls=Option, section=_OUTPUT)
application_option = partial(click.option, cls=Option, section=_APPLICATION)
server_option = partial(click.option, cls=Option, section=_SERVER)
workers_option = partial(click.option, cls=Option, section=_WORKERS)
metrics_option = partial(click.option, cls=Option, section=_METRICS)
