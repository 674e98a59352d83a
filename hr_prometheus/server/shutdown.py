"""The stop of one process that serves: by signals, within its time, and with lines for the person who waits."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import threading
import time
from _thread import start_new_thread
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, NoReturn

from hr_prometheus.server.announcer import SLOW_CLEANUP, start_timer
from hr_prometheus.server.in_progress import CLEANUP, blockers_of, describe_requests
from hr_prometheus.server.pid_file import remove_pid_file
from hr_prometheus.server.runner import CLEANUP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from hr_prometheus.server.announcer import Announcer
    from hr_prometheus.server.in_progress import Blockers, RequestInProgress
    from hr_prometheus.server.runner import Runner

#: Seconds for tasks that go on when they have been cancelled, after a second signal.
_LAST_SECONDS = 0.5


class Shutdown:
    """Stops what *main* serves at a signal, and ends the process if that takes too long.

    Requests in progress have *drain_seconds*, and the application's clean-up :data:`CLEANUP_SECONDS` more. A
    second signal gives them up. *release* is called before the process is ended, to remove the files that it has made.
    """

    def __init__(
        self, main: asyncio.Task[None], announcer: Announcer, drain_seconds: float, release: Callable[[], None]
    ) -> None:
        self._release = release
        self._main, self._announcer, self._drain_seconds = main, announcer, drain_seconds
        self._loop = main.get_loop()
        self._slow_cleanup: threading.Timer | None = None
        self.forced_exit = ForcedExit(self._prepare_forced_exit)
        #: Set by the first signal.
        self.requested = asyncio.Event()
        #: How many signals wait for the event loop.
        self._unseen_signals = 0
        #: Whether there was a second signal.
        self.is_hurried = False
        #: The runner, while the application is served.
        self.runner: Runner | None = None

    def handle(self, *signals: int) -> None:
        """Stop at these signals. SIGHUP is left alone if the application handles or ignores it, as with nohup."""
        for number in signals:
            if number != signal.SIGHUP or signal.getsignal(number) == signal.SIG_DFL:
                with suppress(NotImplementedError, ValueError, RuntimeError):  # not in this thread or by this loop
                    self._loop.add_signal_handler(number, self._on_signal, number)
                    self._watch(number)

    def _watch(self, number: int) -> None:
        """Have Python call a handler as well, which it does while something blocks the event loop."""
        handler_of_loop = signal.getsignal(number)

        def note(number: int, frame: FrameType | None) -> None:
            if callable(handler_of_loop):
                handler_of_loop(number, frame)
            if not (self.requested.is_set() or (self._unseen_signals and number == signal.SIGHUP)):
                self._unseen_signals += 1
                # A handler may interrupt any code, and so the holder of a lock that threading takes to start a thread.
                start_new_thread(self._stop_if_blocked, (self._unseen_signals,))

        signal.signal(number, note)
        signal.siginterrupt(number, False)

    def _stop_if_blocked(self, signals: int) -> None:
        """Limit the time of a stop that the event loop has not begun, because something blocks it."""
        time.sleep(SLOW_CLEANUP)
        if self.requested.is_set():
            return
        if signals > 1:
            self.give_up()
            return
        seconds = self._drain_seconds + CLEANUP_SECONDS
        self._announcer.note_stop(time.monotonic() - SLOW_CLEANUP)
        self._announcer.stopping(self._blockers().describe(), seconds)
        self.forced_exit.schedule(seconds - SLOW_CLEANUP)

    def _on_signal(self, number: int) -> None:
        if not self.requested.is_set():
            self.requested.set()
            self._announcer.begin_stop()
            self.forced_exit.schedule(self._drain_seconds + CLEANUP_SECONDS)
            if self.runner is None:
                self._main.cancel()
        elif number == signal.SIGHUP:
            pass  # the shell and the system send one each when a terminal is closed
        elif self.runner is not None and self.runner.is_draining:
            self.is_hurried = True
            self.runner.give_up_requests()
        else:
            self.is_hurried = True
            self.give_up()
            self._main.cancel()

    def on_drain(self, requests: list[RequestInProgress]) -> None:
        """Announce the requests in progress that the stop waits for."""
        if requests and self._drain_seconds:
            self._announcer.stopping(describe_requests(requests), self._drain_seconds)
        else:
            self._announce_if_slow(self._drain_seconds + CLEANUP_SECONDS)

    def on_cleanup(self) -> None:
        """Limit the time of the application's clean-up, and announce one that is slow."""
        self.forced_exit.schedule(CLEANUP_SECONDS)
        self._announce_if_slow(CLEANUP_SECONDS)

    def give_up(self) -> None:
        """Allow what is left only a moment."""
        self.forced_exit.schedule(_LAST_SECONDS)

    def finish(self) -> None:
        """Announce the end, or what the process waits for although its event loop is closed: the application's threads."""
        if not any(self._blockers()):
            self._announcer.stopped()
            return
        self._announce_if_slow(CLEANUP_SECONDS)
        atexit.register(self._end)  # which is called when they have ended

    def _end(self) -> None:
        self.close()
        self._announcer.stopped()

    def close(self) -> None:
        """Announce nothing more of a slow clean-up."""
        if self._slow_cleanup is not None:
            self._slow_cleanup.cancel()

    def _blockers(self) -> Blockers:
        blockers = blockers_of(self._loop)
        if self.requested.is_set():
            return blockers
        return blockers._replace(reasons=[each for each in blockers.reasons if each != CLEANUP])  # it has not begun

    def _prepare_forced_exit(self) -> None:
        blockers = self._blockers()
        if any(blockers) or not self._announcer.has_stopped:  # else only the interpreter is slow to end
            self._announcer.stopped(blockers.describe())
        self._release()

    def _announce_if_slow(self, seconds: float) -> None:
        self.close()
        self._slow_cleanup = start_timer(
            SLOW_CLEANUP, lambda: self._announcer.stopping(self._blockers().describe(), seconds)
        )


class ForcedExit:
    """Ends the process with exit code 0 at a time, whatever keeps it: a task, a thread, or the event loop.

    *before* is called first.
    """

    def __init__(self, before: Callable[[], None]) -> None:
        self._before = before
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def schedule(self, seconds: float) -> None:
        """End the process after these seconds from now, instead of at another time; ``inf`` is never."""
        with self._lock:
            self.cancel()
            if seconds < inf:
                self._timer = start_timer(seconds, self._exit)

    def cancel(self) -> None:
        """Let the process go on."""
        if self._timer is not None:
            self._timer.cancel()

    def _exit(self) -> None:
        exit_process(self._before)


@contextmanager
def exit_at_signals(before: Callable[[], None], *, serves: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """While an application is imported, SIGTERM and SIGHUP end the process as they do later: with exit code 0.

    *before* is called first. An exception instead would be lost where Python ignores it, as in a destructor. Once a script
    *serves*, its stop is its own: the signal ends it, after the same clean-up. A fork of the process is ended by the signal.
    """

    def end(number: int, _frame: object) -> None:
        if not serves():
            exit_process(before)
        _remove_files(before)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    handled = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) == signal.SIG_DFL]

    def restore_defaults() -> None:
        for number in handled:
            if signal.getsignal(number) is end:  # else the application has one of its own
                signal.signal(number, signal.SIG_DFL)

    _call_in_forks(restore_defaults, delayed=handled)
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        restore_defaults()


def _call_in_forks(function: Callable[[], None], *, delayed: list[signal.Signals]) -> None:
    """Call *function* in each fork of this process before it gets the *delayed* signals.

    A fork of CPython forgets the signals that its handlers have noted before it runs, so they are blocked that long.
    """
    masks = threading.local()  # several threads can fork at a time

    def block() -> None:
        masks.of_thread = signal.pthread_sigmask(signal.SIG_BLOCK, delayed)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.of_thread)

    def begin_child() -> None:
        function()
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=begin_child)


def exit_process(before: Callable[[], None], code: int = 0) -> NoReturn:
    """End the process at once, whatever it does. *before* is called first, and the files that it has made are removed."""
    try:
        _remove_files(before)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # the application may have closed or replaced it
                stream.flush()
    finally:
        os._exit(code)


def _remove_files(before: Callable[[], None]) -> None:
    remove_pid_file()
    before()
