"""What all commands promise, those included that will be added: their help, and what cannot be written."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import click
import pytest
from conftest import APPS, DEADLINE, clean_environment

from hr_prometheus.cli_observability import main

if TYPE_CHECKING:
    from collections.abc import Iterator


def names(command: click.Command, *before: str) -> Iterator[tuple[str, ...]]:
    """Yield the words that name a command, and those of each command below it."""
    yield before
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from names(each, *before, name)


COMMANDS = list(names(main))


def on_a_terminal(columns: int, *arguments: str) -> tuple[int, str]:
    """Run the command on a terminal; return its exit code and what the terminal shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "hr_prometheus", *arguments],
        cwd=APPS, env=clean_environment(), stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 10_000):
            shown += piece
    except OSError:  # so does a terminal end on Linux
        pass
    finally:
        os.close(ours)
    return process.wait(timeout=DEADLINE), shown.decode().replace("\r\n", "\n")


def in_a_pipe(columns: int, *arguments: str) -> tuple[int, str]:
    """Run the command without a terminal; return its exit code and what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "hr_prometheus", *arguments],
        cwd=APPS, env=clean_environment(COLUMNS=str(columns)), capture_output=True, text=True, timeout=DEADLINE,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_its_help(command, columns):
    """It fits the width, with and without a terminal, and every option is in it."""
    shown = on_a_terminal(columns, *command, "--help")
    assert shown == in_a_pipe(columns, *command, "--help")
    code, text = shown
    assert code == 0, text
    assert text.startswith("Usage: ")
    assert not [line for line in text.splitlines() if len(line) > columns]
    of_command = main
    for name in command:
        of_command = of_command.commands[name]
    for parameter in of_command.params:
        assert not isinstance(parameter, click.Option) or f"{parameter.opts[-1]} " in text.replace("\n", " ")
