"""The classes of the options and commands: an environment variable for each option, sections of the help, numbers."""

from __future__ import annotations

import os
import re
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hr_prometheus.settings import Origin

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
_ORIGINS = "hr_prometheus.origins"


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
        """Return the value, and note where it was typed, for errors and warnings."""
        value, source = super().consume_value(ctx, opts)
        if source in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}:
            variable = str(self.envvar) if source is ParameterSource.ENVIRONMENT else ""
            values = () if self.is_flag else tuple(value) if self.multiple else (value,)
            origin = Origin(self.opts[-1], values, variable, os.environ.get(variable, ""), self.multiple)
            ctx.meta.setdefault(_ORIGINS, {})[self._setting] = origin
        return value, source

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return the option as it was typed, for an error of click's."""
        origin = None if ctx is None else origins_of(ctx).get(self._setting)
        return self.opts[-1] if origin is None else origin.quote()


def origins_of(ctx: click.Context) -> dict[str, Origin]:
    """Return where the settings were typed, by the names of their options; a default has none."""
    origins: dict[str, Origin] = ctx.meta.get(_ORIGINS, {})
    return origins


def quote_variables_in(text: str, ctx: click.Context) -> Iterator[str]:
    """Yield the environment variables, with their values, whose values are words of *text*."""
    for origin in origins_of(ctx).values():
        word = rf"(?<![\w.-]){re.escape(origin.text)}(?![\w-]|\.\w)"
        if origin.variable and not origin.is_list and re.search(word, text):
            yield origin.name


class Command(click.Command):
    """A command whose help lists its options by section, and whose function gets the *origins* of its settings."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        ctx.params["origins"] = origins_of(ctx)
        return super().invoke(ctx)

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
