"""The classes of the options and arguments, which note where each was typed: as an option, in a variable or in a file."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hr_prometheus.commands.environment import VARIABLE_PREFIX
from hr_prometheus.commands.types import FilePath, OptionalChoice, PathPattern, TargetName
from hr_prometheus.origins import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

OUTPUT = "Output"
APPLICATION = "Application"
SERVER = "Where and how the application is served"
WORKERS = "More than one process"
DEVELOPMENT = "Development"
METRICS = "Metrics"
FILES = "Files with settings"

#: The text of an argument that others follow and that was not typed, as it cannot be.
NOT_TYPED = "\0"
_BOUNDARY = re.compile(r"(?<![\w.-])")
_REST_OF_WORD = re.compile(r"[\w-]|\.\w")
# In a context's meta:
_ORIGINS = "hr_prometheus.origins"
#: The path of the configuration file, if there is one; ``None`` if none is read whatever names one.
CONFIG_PATH = "hr_prometheus.config_path"
#: The origins of the settings in the configuration file, by their keys.
CONFIG_FILE = "hr_prometheus.config_file"
#: The names and lines of the variables that a file has set.
ENV_FILE = "hr_prometheus.env_file"


class Parameter(click.Parameter):
    """A parameter that may be set by a configuration file, unless it says otherwise.

    There its value is of its type, or an array. If it *takes_numbers* its text may be a number as well, or several. If it
    *takes_table* a table ``{NAME = VALUE}`` is short for texts ``NAME=VALUE``.
    """

    is_settable = True
    takes_numbers = False
    takes_table = False
    #: Reads a value that is given, or all of them if there may be any number.
    parse: Callable[[Any], object] | None = None

    @property
    def option(self) -> str:
        """The name under which it is typed: of several the last."""
        return self.opts[-1]

    @property
    def key(self) -> str:
        """Its name in a configuration file."""
        return self.option.removeprefix("--")

    @property
    def setting(self) -> str:
        """Its name among the origins."""
        return self.key.replace("-", "_")

    @property
    def is_list(self) -> bool:
        """Whether it has any number of values."""
        return self.multiple or self.nargs == -1

    @property
    def takes_empty(self) -> bool:
        """Whether an empty text is a value, or has an error of its own."""
        is_checked = self.parse is not None or isinstance(self.type, click.Choice)
        return is_checked or self.nargs == -1 or self.default == ""

    @property
    def _needs_text(self) -> bool:
        """Whether nothing else refuses an empty text."""
        if isinstance(self.type, TargetName) or not isinstance(self.type, click.types.StringParamType | FilePath):
            return False
        return self.is_settable and not self.takes_empty

    def resolve(self, text: str, directory: str) -> str:
        """Return the value that *text* means in a configuration file in a *directory*."""
        if isinstance(self.type, FilePath | PathPattern | TargetName):
            return self.type.resolve(text, directory)
        return text

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        """Return the value, and note where it was typed, for errors and warnings."""
        if opts.get(str(self.name)) in ((), NOT_TYPED):  # click 8.1 has () for arguments of any number
            opts = {}
        value, source = super().consume_value(ctx, opts)
        origin = self._origin(ctx, value, source)
        if origin is not None:
            ctx.meta.setdefault(_ORIGINS, {})[self.setting] = origin
        if source is ParameterSource.COMMANDLINE and self._needs_text and "" in (value if self.is_list else [value]):
            # The shell may lack the variable that was typed.
            raise click.BadParameter("expected a text that is not empty.", ctx, self)
        return value, source

    def _origin(self, ctx: click.Context, value: Any, source: ParameterSource) -> Origin | None:
        if source is ParameterSource.DEFAULT_MAP:
            origins: dict[str, Origin] = ctx.meta[CONFIG_FILE]
            return origins[self.key]
        if source not in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}:
            return None
        values = tuple(value) if self.is_list else (str(value).lower(),) if isinstance(value, bool) else (value,)
        origin = Origin(self.option, values, is_path=isinstance(self.type, FilePath))
        if source is ParameterSource.COMMANDLINE:
            return origin
        variable = str(self.envvar)
        place = ctx.meta.get(ENV_FILE, {}).get(variable, {})
        return replace(origin, variable=variable, text=os.environ[variable], is_list=self.is_list, **place)


class Argument(Parameter, click.Argument):
    """An argument."""


class Option(Parameter, click.Option):
    """An option with an environment variable, in a *section* of the help. *parse* reads a value that is given."""

    def __init__(
        self,
        *args: Any,
        section: str,
        parse: Callable[[Any], object] | None = None,
        is_settable: bool = True,
        takes_numbers: bool = False,
        takes_table: bool = False,
        **attributes: Any,
    ) -> None:
        if parse is not None:
            attributes["callback"] = lambda _ctx, _option, value: None if value is None else parse(value)
        super().__init__(*args, **attributes)
        self.section, self.parse = section, parse
        self.is_settable, self.takes_numbers, self.takes_table = is_settable, takes_numbers, takes_table
        self.envvar = VARIABLE_PREFIX + self.setting.upper()
        self.show_envvar = True

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return the option as it was typed, for an error of click's."""
        origin = None if ctx is None else origins_of(ctx).get(self.setting)
        return self.option if origin is None else origin.quote()


def complete_bare_options(command: click.Command, args: Sequence[str]) -> list[str]:
    """Return arguments with the values that options have been left without: click would take the next word for one."""
    types = {each.opts[-1]: each.type for each in command.params if isinstance(each.type, OptionalChoice)}
    complete = []
    for word, following in zip_longest(args, args[1:], fillvalue=""):
        choice = types.get(word)
        if choice is not None and following not in choice.choices:
            complete.append(f"{word}={choice.bare}")
        else:
            complete.append(word)
    return complete


def settable_parameters(command: click.Command) -> dict[str, Parameter]:
    """Return the parameters of a command that a configuration file may set, by their keys."""
    return {each.key: each for each in command.params if isinstance(each, Parameter) and each.is_settable}


def origins_of(ctx: click.Context) -> dict[str, Origin]:
    """Return where the settings were typed, by the names of their options; a default has none."""
    origins: dict[str, Origin] = ctx.meta.get(_ORIGINS, {})
    return origins


def quote_origins_in(text: str, ctx: click.Context, settings: Collection[str] = ()) -> Iterator[str]:
    """Yield the environment variables, with their values, and the lines of a file, whose values are words of *text*.

    Those that it quotes already are left out. If the *settings* that it is about are known, others are left out as well.
    """
    for setting, origin in origins_of(ctx).items():
        if origin.is_derived or (settings and setting not in settings):
            continue
        values = (origin.text,) * (not origin.is_list) if origin.variable else origin.values if origin.file else ()
        values = tuple(
            value for value in values if value and origin.hide(value) in text
        )  # few of what may be thousands
        is_quoted = origin.name in text or any(origin.quote(value) in text for value in values)
        if not is_quoted and any(_has_word(text, origin.hide(value)) for value in values):
            yield origin.name


def _has_word(text: str, word: str) -> bool:
    """Whether *word* stands in *text* by itself, rather than in a longer word, name or number."""
    starts = (boundary.start() for boundary in _BOUNDARY.finditer(text))
    return any(text.startswith(word, start) and not _REST_OF_WORD.match(text, start + len(word)) for start in starts)


output_option = partial(click.option, cls=Option, section=OUTPUT)
application_option = partial(click.option, cls=Option, section=APPLICATION)
server_option = partial(click.option, cls=Option, section=SERVER)
workers_option = partial(click.option, cls=Option, section=WORKERS)
development_option = partial(click.option, cls=Option, section=DEVELOPMENT)
metrics_option = partial(click.option, cls=Option, section=METRICS)
file_option = partial(click.option, cls=Option, section=FILES, expose_value=False)
