"""Ctrl-C, from the command's first moment to its last: no traceback, and the exit code that fits the moment.

Python raises :exc:`KeyboardInterrupt` wherever it happens to be: in the middle of an import, while an object is
destroyed, after the last ``except``. So while only our own code runs, Ctrl-C ends the process at once. While the
application's code runs, it is raised as ever, so that the application can tidy up.

This module is imported before all others, so it imports next to nothing.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

TYPE_CHECKING = False  # to import typing takes longer than all of this
if TYPE_CHECKING:
    from typing import Self

#: The exit code of a command that is interrupted before it has done its work.
INTERRUPTED = 130
#: Seconds after which an interruption that Python has swallowed is raised again.
_AGAIN_SECONDS = 0.01

_code = INTERRUPTED


def exit_at_once() -> None:
    """Have Ctrl-C end the process at once, from now on."""
    signal.signal(signal.SIGINT, _exit)
    # Python gives the signal back to the system before it destroys the modules, which takes a while.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def note_serving() -> None:
    """Note that the application serves: an interruption is no failure any more."""
    global _code  # noqa: PLW0603  # there is one process
    _code = 0


def exit_code() -> int:
    """Return the exit code of a command that is interrupted now."""
    return _code


def is_interruption(error: BaseException | None) -> bool:
    """Whether *error* was caused by an interruption: Python before 3.12 makes other errors of some, and so do applications."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


class DefaultHandler:
    """A block in which Ctrl-C raises :exc:`KeyboardInterrupt`. Without :func:`exit_at_once` it changes nothing."""

    def __enter__(self) -> None:
        self._is_outermost = signal.getsignal(signal.SIGINT) is _exit
        if self._is_outermost:
            self._hook, sys.unraisablehook = sys.unraisablehook, self._on_unraisable
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_exception: object) -> None:
        if self._is_outermost:
            signal.signal(signal.SIGINT, _exit)
            sys.unraisablehook = self._hook

    def _on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Raise an interruption again that met Python where nothing can be raised, as in a destructor."""
        if unraisable.exc_type is not KeyboardInterrupt:
            self._hook(unraisable)
            return
        from threading import Timer  # noqa: PLC0415  # rarely needed

        again = Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()


class Deferral:
    """A block in which Ctrl-C waits, where it would raise :exc:`KeyboardInterrupt`. At the end, this is raised.

    So nothing is interrupted half-made: not an event loop, which could not be destroyed, nor a coroutine without a task, which
    Python warns of.
    """

    def __enter__(self) -> Self:
        self._is_interrupted = False
        self._is_effective = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._is_effective:
            try:
                signal.signal(signal.SIGINT, self._defer)
            except ValueError:  # only the main thread is ever interrupted
                self._is_effective = False
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def end(self) -> None:
        """End the block now, as in the first step of its task: where Ctrl-C comes just before a step, that is lost."""
        if self._is_effective:
            self._is_effective = False
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if self._is_interrupted:
                raise KeyboardInterrupt

    def _defer(self, _number: int, _frame: object) -> None:
        self._is_interrupted = True


def _exit(_number: int, _frame: object) -> None:
    os._exit(_code)
