"""What the commands say, and what becomes of them when the operating system refuses it."""

from __future__ import annotations

import contextlib
import errno
import io
import os

import click


class Closed(io.TextIOBase):
    """The standard output of a process without one. It refuses what is written, as a full one does."""

    def write(self, _text: str) -> int:
        """Refuse it."""
        raise OSError(errno.EBADF, "it is closed")


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
