"""The class of the options, which have an environment variable each and note where they were typed."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hr_prometheus.settings import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

VARIABLE_PREFIX = "HR_PROMETHEUS_"
OUTPUT = "Output"
APPLICATION = "Application"
SERVER = "Where and how the application is served"
WORKERS = "More than one process"
METRICS = "Metrics"

_ORIGINS = "hr_prometheus.origins"


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


output_option = partial(click.option, cls=Option, section=OUTPUT)
application_option = partial(click.option, cls=Option, section=APPLICATION)
server_option = partial(click.option, cls=Option, section=SERVER)
workers_option = partial(click.option, cls=Option, section=WORKERS)
metrics_option = partial(click.option, cls=Option, section=METRICS)
