"""The group of all commands: what the operating system refuses, names that are no command, unknown variables."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus import __version__
from hr_prometheus.commands.dashboard import dashboard
from hr_prometheus.commands.routes import routes
from hr_prometheus.commands.rules import rules
from hr_prometheus.commands.run import run
from hr_prometheus.commands.scrape_config import scrape_config
from hr_prometheus.commands.streams import Closed, say
from hr_prometheus.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "HR_PROMETHEUS_"


class Group(click.Group):
    """The commands. What the operating system refuses is one sentence and exit code 1; a closed pipe is silence."""

    _is_refused = False
    _has_terminal = False

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command, and exit."""
        _take_closed_descriptors()
        if sys.stdout is None:
            sys.stdout = Closed()
        self._has_terminal = sys.stdout.isatty()
        code: Any = 1
        try:
            super().main(*args, **kwargs)
        except SystemExit as ended:
            code = ended.code
        except OSError as error:
            self._refuse_any(error)
        self._flush()
        sys.exit(code or int(self._is_refused))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments, and show the help that they ask for."""
        with _until_its_reader_is_gone():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the arguments name; say first which variables no command knows."""
        commands = self.commands.values()
        known = {each.envvar for command in commands for each in command.params if isinstance(each.envvar, str)}
        for name in sorted(os.environ.keys() - known):
            if name.startswith(_PREFIX):
                rests = sorted(each.removeprefix(_PREFIX) for each in known)
                hint = did_you_mean(name.removeprefix(_PREFIX), rests, prefix=_PREFIX)
                say("Warning", f"{name} is not a setting of hr-prometheus.{hint}")
        with _until_its_reader_is_gone():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            hint = did_you_mean(name, self.list_commands(ctx))
            if set(name) & set(":./"):
                hint = f" Did you mean: {ctx.command_path} run {name}?"
            ctx.fail(f'No such command "{name}".{hint}')
        return super().resolve_command(ctx, args)

    def refuse(self, error: OSError) -> None:
        """Say once that standard output cannot be written, unless its reader or its terminal is gone."""
        is_gone = error.errno == errno.EPIPE or (error.errno == errno.EIO and self._has_terminal)
        if not (is_gone or self._is_refused):
            self._is_refused = True
            say("Error", f"standard output cannot be written: {error.strerror}. Send it somewhere else.")

    def _refuse_any(self, error: OSError) -> None:
        try:
            os.getcwd()
        except OSError:
            say("Error", "the current directory does not exist any more. Change to one that does.")
        else:
            if error.filename is None:  # all that has no name is a standard stream
                self.refuse(error)
            else:
                say("Error", f'the operating system has refused "{error.filename}": {error.strerror}.')

    def _flush(self) -> None:
        """Write what is left. Python does so later, and has its own words and exit code if that is refused."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError as error:
                self.refuse(error)
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what is left
            except (AttributeError, ValueError):  # the application has closed or replaced it
                pass


@contextlib.contextmanager
def _until_its_reader_is_gone() -> Iterator[None]:
    """Be done when a pipe is closed, of which click makes exit code 1."""
    try:
        yield
    except BrokenPipeError:
        raise click.exceptions.Exit(0) from None


def _take_closed_descriptors() -> None:
    """See that no socket or file gets the number of a closed standard stream, and with it what others print there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it has the lowest number that is free


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="hr-prometheus")
def main() -> None:
    """Prometheus metrics for any aiohttp server: true, bounded and almost free."""


for _command in (run, routes, dashboard, rules, scrape_config):
    main.add_command(_command)
