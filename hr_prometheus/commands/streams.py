"""Standard output and standard error. Each may be closed, full or a closed pipe."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.quotes import hide_pem

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Characters of a value in an error or a warning.
_LONGEST_QUOTE = 300


class ClosedOutput(io.TextIOBase):
    """Standard output of a process without one. It refuses what is written, as a full disk does."""

    def write(self, _text: str) -> int:
        """Refuse it."""
        raise OSError(errno.EBADF, "it is closed")


class StandardOutput:
    """Standard output. That it cannot be written is one error, which makes the exit code 1."""

    def __init__(self) -> None:
        if sys.stdout is None:
            sys.stdout = ClosedOutput()  # click would take it for one that needs no output
        self._is_terminal = sys.stdout.isatty()
        self.is_refused = False

    def announce(self, line: str) -> None:
        """Print a line of a server, in any thread. A server that cannot print it serves all the same."""
        file: Any = sys.stdout or ClosedOutput()
        try:
            click.echo(line, file=file, color=colors())
        except OSError as error:
            self.refuse(error)
        except (ValueError, AttributeError):  # the application has closed or replaced it
            pass

    def hand_over(self) -> None:
        """Leave a closed standard output to an application as Python does, which then prints nothing."""
        if isinstance(sys.stdout, ClosedOutput):
            sys.stdout = None

    def refuse(self, error: OSError) -> None:
        """Print once that it cannot be written, unless its reader or its terminal is gone."""
        is_gone = error.errno == errno.EPIPE or (error.errno == errno.EIO and self._is_terminal)
        if not (is_gone or self.is_refused):
            self.is_refused = True
            print_error(f"standard output cannot be written: {error.strerror}. Send it somewhere else.")

    def flush(self) -> None:
        """Write what is buffered. Python does so later, and has its own words and exit code for a refusal."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError as error:
                self.refuse(error)
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what is left
            except (AttributeError, ValueError):  # the application has closed or replaced it
                pass


def print_result(text: str, *, nl: bool = True) -> None:
    """Print what a command was asked for. A closed pipe is no failure: its reader has read enough."""
    with contextlib.suppress(BrokenPipeError):
        click.echo(text, nl=nl)


def output_width() -> int | None:
    """Return how wide a table for people may be; None is any width.

    A terminal of unknown width gets 80 columns. A file or pipe gets one line a route, unless ``COLUMNS`` is set.
    """
    unknown = 80 if sys.stdout.isatty() else 0
    return shutil.get_terminal_size((unknown, 24)).columns or None


def print_error(text: str) -> None:
    """Print an error's sentence on standard error, if that can be written."""
    _print("Error", "red", text)


def print_warning(text: str) -> None:
    """Print a warning's sentence on standard error, if that can be written."""
    _print("Warning", "yellow", text)


def cut_quotes(text: str) -> str:
    """Return *text* with the beginning of each quoted value that is long, and without a private key."""

    def cut(quote: re.Match[str]) -> str:
        return quote[0] if len(quote[1]) <= _LONGEST_QUOTE else f'"{quote[1][:_LONGEST_QUOTE]}…"'

    return re.sub('"([^"]*)"', cut, hide_pem(text))


def _print(kind: str, colour: str, text: str) -> None:
    text = cut_quotes(text)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be closed
        click.echo(f"{click.style(f'{kind}:', fg=colour, bold=True)} {text}", err=True, color=colors())


def colors() -> bool | None:
    """Return ``False`` if ``NO_COLOR`` is set (https://no-color.org), else ``None``: colours on a terminal only."""
    return False if os.environ.get("NO_COLOR") else None


@contextlib.contextmanager
def exit_at_closed_pipe() -> Iterator[None]:
    """End the command with exit code 0 when the reader of its output is gone. Click ends it with 1."""
    try:
        yield
    except BrokenPipeError:
        raise click.exceptions.Exit(0) from None


def fill_closed_descriptors() -> None:
    """Open the null device for each closed standard stream.

    Otherwise the next socket or file gets its number, and with it what others print there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it has the lowest number that is free
