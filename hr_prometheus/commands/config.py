"""The command that shows the settings of the commands, and where each comes from."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.commands import file_options, output_options
from hr_prometheus.commands.command import Command
from hr_prometheus.commands.errors import exit_with
from hr_prometheus.commands.parameters import CONFIG_PATH, ENV_FILE, Parameter, origins_of
from hr_prometheus.commands.run import run
from hr_prometheus.commands.sources import commands_of
from hr_prometheus.commands.streams import print_result
from hr_prometheus.commands.types import FilePath
from hr_prometheus.errors import HrPrometheusError, did_you_mean
from hr_prometheus.quotes import hide_secret
from hr_prometheus.settings import Settings
from hr_prometheus.status.address import hide_passwords
from hr_prometheus.status.rate_table import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hr_prometheus.origins import Origin

_HEAD = ("SETTING", "VALUE", "FROM")
#: Characters of a column. What is longer has no room beside it in the other lines.
_WIDEST = 60


@dataclasses.dataclass(frozen=True)
class _Row:
    """A setting with its *value*, the help's words for a *default* that depends on others, and where it was typed."""

    name: str
    value: Any
    default: str
    origin: Origin | None

    @property
    def text(self) -> str:
        """The value for people."""
        values = self.value if isinstance(self.value, tuple) else () if self.value is None else (self.value,)
        texts = [escape_unprintable(each) if isinstance(each, str) else json.dumps(each) for each in values]
        return (self.default if self.origin is None else "") or "  ".join(texts) or "-"

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        if self.origin is None:
            return "default"
        place = f"{self.origin.file}, line {self.origin.lines[0]}" if self.origin.file else ""
        if self.origin.variable:
            return f"{self.origin.variable} ({place})" if place else self.origin.variable
        return place or (self.origin.option if self.origin.option.startswith("--") else "argument")

    def to_json(self, commands: Sequence[str]) -> dict[str, Any]:
        """Return the setting of these *commands* as values that JSON can carry."""
        plain = {"name": self.name, "commands": commands, "value": self.value}
        if self.origin is None:
            return plain | {"from": "default"} | ({"default": self.default} if self.default else {})
        place = {"file": self.origin.file, "line": self.origin.lines[0]} if self.origin.file else {}
        if self.origin.variable:
            return plain | {"from": "variable", "variable": self.origin.variable} | place
        return plain | ({"from": "file"} | place if place else {"from": "command line"})


@click.command(
    cls=Command,
    reads_files=False,
    short_help="Show all settings, and where each comes from.",
    context_settings={"allow_interspersed_args": False},  # what follows the name of a command belongs to that
)
@click.argument("command", required=False)
@click.argument("arguments", nargs=-1, metavar="[ARGS]...", type=click.UNPROCESSED)
@output_options.output_format
@output_options.check
@file_options.files
@click.pass_context
def config(
    ctx: click.Context, /, command: str | None, arguments: Sequence[str], output_format: str, *, check: bool, **_: Any
) -> None:
    """Show the settings of all commands, or those that COMMAND has with ARGS, and where each comes from.

    \b
      hr-prometheus config
      hr-prometheus config run --workers 2

    A setting comes from the command line, else from an environment variable, else from the configuration file, else it is
    the default. What is wrong with them is the error that the command itself gives. What needs the application, such as the
    names of its routes, is checked by `routes`.
    """
    commands = commands_of(ctx)
    if command is not None and command not in commands:
        ctx.fail(f'No such command "{command}".{did_you_mean(command, commands)}')
    is_complete = check and command is not None
    contexts = [
        _make_context(ctx, commands[name], arguments, is_complete=is_complete)
        for name in ([command] if command else commands)
    ]
    rows: dict[_Row, list[str]] = {}
    for context in contexts:
        for row in _rows(context):
            rows.setdefault(row, []).append(str(context.command.name))
    if not check:
        document = {"settings": [row.to_json(names) for row, names in rows.items()]}
        print_result(json.dumps(document, indent=2) if output_format == "json" else "\n".join(_table(rows)))
    for context in contexts:
        _check(context)
    if check:
        print_result("No errors.")


def _make_context(
    ctx: click.Context, command: click.Command, arguments: Sequence[str], *, is_complete: bool
) -> click.Context:
    """Return the context that a command has with *arguments* and the files of this one.

    A target may be missing, unless the arguments are those that it *is_complete* with.
    """
    command = copy.copy(command)
    command.params = [copy.copy(parameter) for parameter in command.params]
    for parameter in command.params:
        parameter.required = parameter.required and is_complete
    files = []
    for name in ("config", "no_config", "env_file"):
        origin = origins_of(ctx).get(name)
        if origin is not None and not (origin.variable or origin.file):
            files += [origin.option, *(origin.values if name != "no_config" else ())]
    root = ctx.find_root()
    parent = click.Context(root.command, info_name=root.info_name)  # has origins of its own
    parent.meta[ENV_FILE] = ctx.meta.setdefault(ENV_FILE, {})  # which the first of them sets
    try:
        return command.make_context(command.name, [*files, *arguments], parent=parent)
    except HrPrometheusError as error:
        exit_with(error, parent)
    except click.NoSuchOption as error:
        if any(error.option_name in parameter.opts for parameter in ctx.command.params):
            ctx.fail(f'"{error.option_name}" is an option of {ctx.command.name}. Give it before "{command.name}".')
        raise


def _rows(ctx: click.Context) -> Iterator[_Row]:
    """Yield the settings of a command in the order of its help."""
    for parameter in ctx.command.params:
        if isinstance(parameter, Parameter):
            yield _file_row(ctx, parameter) if parameter.name == "config" else _row(ctx, parameter)


def _row(ctx: click.Context, parameter: Parameter) -> _Row:
    origin = origins_of(ctx).get(parameter.setting)
    words = getattr(parameter, "show_default", None)
    default = words if isinstance(words, str) else ""
    if f"--{default}" in parameter.opts + parameter.secondary_opts:  # of a flag
        default = json.dumps(f"--{default}" in parameter.opts)
    if origin is not None:
        values = tuple(parameter.type(text, parameter, ctx) for text in origin.values)
    else:
        value = parameter.get_default(ctx)
        # click's own value for "no default" differs between its versions
        values = value if isinstance(value, tuple) else (value,)
        values = tuple(each for each in values if isinstance(each, str | int | float) and each != "")
    is_path = isinstance(parameter.type, FilePath)
    values = tuple(
        hide_passwords(hide_secret(value, is_path=is_path)) if isinstance(value, str) else value for value in values
    )
    return _Row(parameter.key, values if parameter.is_list else next(iter(values), None), default, origin)


def _file_row(ctx: click.Context, parameter: Parameter) -> _Row:
    """Return the row of the configuration file, which is the one that is read, if any is."""
    path = ctx.meta.get(CONFIG_PATH, "")
    row = _row(ctx, parameter)
    if path is None:  # whatever names one
        return _Row(row.name, None, "", None)
    return dataclasses.replace(row, value=path, default="") if path and row.origin is None else row


def _table(rows: Mapping[_Row, Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table. A setting that differs between the commands has a line for each value, with its commands."""
    names = Counter(row.name for row in rows)
    cells = [_HEAD]
    for row, commands in rows.items():
        owners = f" ({', '.join(commands)})" if names[row.name] > 1 else ""
        cells.append((row.name + owners, row.text, row.source))
    first, second = (max(min(len(line[column]), _WIDEST) for line in cells) for column in (0, 1))
    for name, value, source in cells:
        yield f"{name:{first}}  {value:{second}}  {source}"


def _check(ctx: click.Context) -> None:
    """End with the error that a command ends with because of its settings, alone or together."""
    names = {each.name for each in dataclasses.fields(Settings)}
    values = {name: value for name, value in ctx.params.items() if name in names}
    try:
        settings = Settings(**values | {"target": values.get("target") or "", "origins": origins_of(ctx)})
        # Imported late, as in the commands themselves.
        from hr_prometheus.server.early_checks import check_metrics, check_server

        check_metrics(settings)
        if ctx.command.name == run.name:
            check_server(settings)
    except HrPrometheusError as error:
        exit_with(error, ctx)
