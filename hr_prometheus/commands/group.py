"""The group of all commands: their errors become sentences and exit codes, and mistyped names get a suggestion."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.machinery import PathFinder
from typing import Any, NoReturn

import click

from hr_prometheus import __version__
from hr_prometheus.commands.check_web_config import check_web_config
from hr_prometheus.commands.config import config
from hr_prometheus.commands.dashboard import dashboard
from hr_prometheus.commands.environment import warn_of_unknown_variables
from hr_prometheus.commands.errors import exit_with, report_refusal
from hr_prometheus.commands.routes import routes
from hr_prometheus.commands.rules import rules
from hr_prometheus.commands.run import run
from hr_prometheus.commands.scrape_config import scrape_config
from hr_prometheus.commands.streams import (
    StandardOutput,
    cut_quotes,
    exit_at_closed_pipe,
    fill_closed_descriptors,
)
from hr_prometheus.commands.top import top
from hr_prometheus.errors import HrPrometheusError, did_you_mean
from hr_prometheus.server import interrupts


class Group(click.Group):
    """The commands. Any error that can be expected is one sentence and an exit code, never a traceback of ours."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command, and exit."""
        fill_closed_descriptors()
        output = StandardOutput()
        code: Any = 1
        try:
            super().main(*args, obj=output, **kwargs)
        except SystemExit as end:
            code = end.code
        except OSError as error:
            report_refusal(error, output)
        output.flush()
        sys.exit(code or int(output.is_refused))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments, and print the help that they ask for."""
        with exit_at_closed_pipe():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the arguments name."""
        warn_of_unknown_variables(dict.fromkeys(os.environ, ""), self)
        try:
            with exit_at_closed_pipe():
                return super().invoke(ctx)
        except HrPrometheusError as error:
            exit_with(error, ctx)
        except click.UsageError as error:
            _raise_without_passwords(error)
        except KeyboardInterrupt:
            sys.exit(interrupts.exit_code())

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            hint = did_you_mean(name, self.list_commands(ctx))
            if set(name) & set(":./") or (not hint and _is_module(name)):
                hint = f" Did you mean: {ctx.command_path} run {shlex.quote(name)}?"
            ctx.fail(f'No such command "{name}".{hint}')
        return super().resolve_command(ctx, args)


def _raise_without_passwords(error: click.UsageError) -> NoReturn:
    """Raise a usage error, which repeats what was typed, without the password of a URL, a key and the rest of a long value."""
    text = error.format_message()
    shorter = cut_quotes(text)
    if "@" not in text and shorter == text:
        raise error
    from hr_prometheus.status.address import hide_passwords  # seldom needed

    raise click.UsageError(hide_passwords(shorter), error.ctx) from None


def _is_module(name: str) -> bool:
    """Whether the current directory has a module or a package of this name."""
    spec = PathFinder.find_spec(name, [os.curdir])
    return spec is not None and spec.origin is not None  # a directory without an __init__.py has no origin


@click.group(
    cls=Group,
    commands=[run, routes, dashboard, rules, scrape_config, top, config, check_web_config],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="hr-prometheus")
def cli() -> None:
    """Prometheus metrics for any aiohttp server: true, bounded and almost free."""
