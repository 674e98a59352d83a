"""A terminal that a command draws on and takes keys from, and that is restored when the command ends or is suspended."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from hr_prometheus.commands.streams import colors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hr_prometheus.status.rate_table import Line

# Control sequences of xterm, which terminals have in common: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
_ALTERNATE, _NORMAL = "\x1b[?1049h", "\x1b[?1049l"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_HOME, _CLEAR_LINE, _CLEAR_BELOW, _RESET = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[m"
_STYLES = {"title": "\x1b[1m", "header": "\x1b[4m", "sorted": "\x1b[1;4m", "error": "\x1b[1;31m"}
_STYLES |= {"warning": "\x1b[33m", "quiet": "\x1b[2m"}

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: What changes the terminal: its size, Ctrl-Z, and the end of any stop.
_CHANGES = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
_UNKNOWN_SIZE = os.terminal_size((80, 24))


def can_draw() -> bool:
    """Whether standard input and output are a terminal that can move its cursor."""
    are_terminals = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    return are_terminals and os.environ.get("TERM", "") not in ("", "dumb")


@contextmanager
def open_screen() -> Iterator[Screen]:
    """Take the terminal over, and restore it at the end, whatever that is."""
    screen = Screen()
    before = {number: signal.signal(number, lambda *_: None) for number in (*_STOPS, *_CHANGES)}
    try:
        screen.enter()
        yield screen
    finally:
        screen.leave()
        screen.close(before)


class Screen:
    """The alternate screen of the terminal, and its keys, which come without Enter and are not shown.

    A signal becomes a byte in a socket, as asyncio has it, so that one place waits for keys, signals and other threads.
    """

    def __init__(self) -> None:
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._encoding = sys.stdout.encoding
        self._styles = {} if colors() is False else _STYLES
        self._attributes = termios.tcgetattr(self._input)
        self._events, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)

    def enter(self) -> None:
        """Show the alternate screen."""
        tty.setcbreak(self._input)
        self._write(_ALTERNATE + _HIDE_CURSOR + _NO_WRAP + _RESET + _HOME + _CLEAR_BELOW)

    def leave(self) -> None:
        """Show what was there before, unless the terminal is gone. What was typed is not left to the shell."""
        self._write(_RESET + _WRAP + _SHOW_CURSOR + _NORMAL)
        with suppress(termios.error):
            termios.tcsetattr(self._input, termios.TCSAFLUSH, self._attributes)

    def close(self, handlers: Mapping[signal.Signals, signal._HANDLER]) -> None:
        """Give the signals back to *handlers*."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        self._events.close()
        self._sender.close()

    def wake(self) -> None:
        """Have :meth:`read_keys` return, from any thread."""
        with suppress(OSError):  # the screen is closed, or it has been woken often enough
            self._sender.send(b"\0")

    def read_keys(self) -> str | None:
        """Wait for keys, a change of the terminal or :meth:`wake`. Return the keys; None if the command has to stop."""
        ready, _, _ = select.select([self._input, self._events], [], [])
        if self._events in ready:
            signals = self._events.recv(4096)
            if not {*_STOPS}.isdisjoint(signals):
                return None
            if signal.SIGTSTP in signals:
                self._suspend()
            elif signal.SIGCONT in signals:
                self.enter()  # the shell has set the terminal up for itself
        if self._input not in ready:
            return ""
        try:
            keys = os.read(self._input, 4096)
        except OSError:
            return None
        return keys.decode(errors="replace") or None  # which the end of the terminal is

    def size(self) -> os.terminal_size:
        """Return the columns and lines."""
        try:
            size = os.get_terminal_size(self._output)
        except OSError:
            return _UNKNOWN_SIZE
        return size if size.columns and size.lines else _UNKNOWN_SIZE

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines from the top, and nothing below them."""
        # Cleared before it is written: behind a line of full width the cursor is still on its last character.
        texts = [_CLEAR_LINE + "".join(map(self._styled, line)) for line in lines[:-1]]
        texts += [_CLEAR_BELOW + "".join(map(self._styled, line)) for line in lines[-1:]]
        self._write(_HOME + "\r\n".join(texts))

    def _styled(self, piece: tuple[str, str]) -> str:
        text, style = piece
        return f"{self._styles[style]}{text}{_RESET}" if style in self._styles else text

    def _suspend(self) -> None:
        self.leave()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # returns when the shell has continued it
        signal.signal(signal.SIGTSTP, handler)
        self.enter()

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "replace")
        with suppress(OSError):  # the terminal is gone, which reading shows
            while data:
                data = data[os.write(self._output, data) :]
