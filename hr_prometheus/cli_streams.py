"""What the commands say, and what becomes of them when the operating system refuses it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.cli_options import SuggestingGroup
from hr_prometheus.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "HR_PROMETHEUS_"


class Closed(io.TextIOBase):
    """The standard output of a process without one. It refuses what is written, as a full one does."""

    def write(self, _text: str) -> int:
        """Refuse it."""
        raise OSError(errno.EBADF, "it is closed")


class Group(SuggestingGroup):
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


def show(text: str, *, nl: bool = True) -> None:
    """Print what a command was asked for. A reader that has closed its pipe has what it wanted."""
    with contextlib.suppress(BrokenPipeError):
        click.echo(text, nl=nl)


def say(kind: str, text: str) -> None:
    """Print a line for people, with its *kind* before it, if there is somewhere to print it."""
    colour = "red" if kind == "Error" else "yellow"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be closed
        click.echo(f"{click.style(f'{kind}:', fg=colour, bold=True)} {text}", err=True, color=color())


def color() -> bool | None:
    """Return ``False`` if ``NO_COLOR`` is set (https://no-color.org), else ``None``: colours on a terminal only."""
    return False if os.environ.get("NO_COLOR") else None


def _take_closed_descriptors() -> None:
    """See that no socket or file gets the number of a closed standard stream, and with it what others print there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it has the lowest number that is free
