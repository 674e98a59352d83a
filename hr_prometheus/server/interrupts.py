"""Ctrl-C, from the command's first moment to its last: no traceback, and the exit code that fits the moment.

Python raises :exc:`KeyboardInterrupt` wherever it happens to be: in the middle of an import, while an object is thrown
away, after the last ``except``. So while only our own code runs, Ctrl-C ends the process at once. While the
application's code runs, it is raised as ever, so that the application can tidy up.

This module is imported before all others. So it imports next to nothing.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

#: The exit code of a command that was interrupted before it had done its work.
INTERRUPTED = 130
#: Seconds after which an interruption that Python has swallowed is raised again.
_AGAIN_SECONDS = 0.01

_code = INTERRUPTED


def take() -> None:
    """Have Ctrl-C end the process at once, from now on."""
    signal.signal(signal.SIGINT, _end)
    # Python gives the signal back to the system before it destroys the modules, which takes a while.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def served() -> None:
    """Note that the application serves: to be interrupted is no failure any more."""
    global _code  # noqa: PLW0603  # there is one process
    _code = 0


def exit_code() -> int:
    """Return the exit code of a command that is interrupted now."""
    return _code


def has_caused(error: BaseException | None) -> bool:
    """Whether an error stands for an interruption: Python before 3.12 makes others of some, and so do applications."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


class Raised:
    """While it is entered, Ctrl-C raises :exc:`KeyboardInterrupt`. Without :func:`take` it changes nothing."""

    def __enter__(self) -> None:
        self._is_taken = signal.getsignal(signal.SIGINT) is _end
        if self._is_taken:
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *_exception: object) -> None:
        if self._is_taken:
            signal.signal(signal.SIGINT, _end)
            sys.unraisablehook = self._hook

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Raise an interruption again that met Python where nothing can be raised, as in a destructor."""
        if unraisable.exc_type is not KeyboardInterrupt:
            self._hook(unraisable)
            return
        from threading import Timer  # noqa: PLC0415  # rarely needed

        again = Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()


def _end(_number: int, _frame: object) -> None:
    os._exit(_code)
