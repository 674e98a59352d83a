"""The lines that announce a server's start and stop, for the person who waits, and for a service manager."""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import TYPE_CHECKING, Self

from hr_prometheus.server import interrupts
from hr_prometheus.server.notify import ServiceManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Seconds after which a start is slow, and a clean-up.
SLOW_START = 2.0
SLOW_CLEANUP = 1.0
#: Ends the line of a start.
STOP_KEY = ", Ctrl-C to stop"
#: What a manager reads before the line of the start.
RELOAD_FAILED = "The reload has failed, see the log. As before: "


class Announcer:
    """Announces one server's start and stop. *announce* is called with each line, from any thread.

    In a ``with`` block, a slow start is announced with what *waits_for* returns then, unless it serves or fails before.
    """

    def __init__(self, announce: Callable[[str], None], waits_for: Callable[[], str]) -> None:
        self._announce, self._waits_for = announce, waits_for
        #: Called when all can be reached.
        self.on_serving: Callable[[], None] = lambda: None
        #: Called, perhaps again, before the metrics can be reached no more.
        self.on_closing: Callable[[], None] = lambda: None
        #: The reader of all lines beside the person.
        self.manager = ServiceManager()
        self._serving_line = ""
        self._is_reloading = False
        self._stop_began = 0.0
        #: When the start began, until it is announced; by ``monotonic``.
        self._began: float | None = None
        #: Whether clients are answered, so that an interruption is a stop.
        self.has_served = False
        #: Whether the end of the stop was announced.
        self.has_stopped = False

    def __enter__(self) -> Self:
        self._slow_start = start_timer(SLOW_START, self._starting)
        self._began = monotonic()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._slow_start.cancel()

    def serving(self, line: str) -> None:
        """Announce that the application is served, with a *line* of :func:`serving_line`; the first one with its seconds."""
        self._slow_start.cancel()
        self.note_serving()
        self.on_serving()
        self._serving_line, self._began = with_seconds(line, self._began), None
        self.manager.ready(self._serving_line)
        self._announce(self._serving_line + STOP_KEY)

    def note_serving(self) -> None:
        """Note that clients are answered, before all is ready that :meth:`serving` announces."""
        self.has_served = True
        interrupts.note_serving()

    def note_failed_start(self) -> None:
        """Note that the start has failed, so that it is no slow one, and will be tried again."""
        self._slow_start.cancel()

    def reloading(self, what: str) -> None:
        """Announce that the application is started anew because of *what* has changed."""
        self._say(f"Reloading: {what}")

    def begin_reload(self) -> None:
        """Note that a reload begins. One that begins before the service is ready is a part of the start."""
        self._is_reloading = bool(self._serving_line)
        if self._is_reloading:
            self.manager.reloading()

    def end_reload(self, *, has_failed: bool) -> None:
        """Note that a reload has ended. If it *has_failed*, the application is served as before."""
        if self._is_reloading and not self._stop_began:
            self.manager.ready(f"{RELOAD_FAILED}{self._serving_line}" if has_failed else self._serving_line)

    def begin_stop(self) -> None:
        """Note that a signal stops the process. After any other stop a script may go on."""
        self.note_stop()
        self.manager.stopping()

    def note_stop(self, began: float | None = None) -> None:
        """Note that the stop begins, or *began* then by ``monotonic``; only the first call counts."""
        self._slow_start.cancel()
        self._stop_began = self._stop_began or began or monotonic()

    def is_serving(self) -> bool:
        """Return whether clients are answered, and no stop has begun."""
        return self.has_served and not self._stop_began

    def stopping(self, reason: str, seconds: float) -> None:
        """Announce that a stop waits for *reason*, for so many *seconds* at most."""
        self._say(f"Stopping: waiting for {reason}, at most {seconds:g} s", "; Ctrl-C again to stop now")

    def stopped(self, unfinished: str = "") -> None:
        """Announce the end of a stop, with what is left *unfinished*."""
        self.has_stopped = True
        rest = f", without waiting for {unfinished}" if unfinished else ""
        self._say(f"Stopped after {monotonic() - self._stop_began:.1f} s{rest}")

    def _starting(self) -> None:
        self._say(f"Starting: waiting for {self._waits_for()}, {SLOW_START:g} s so far", "; Ctrl-C to stop")

    def _say(self, line: str, key: str = "") -> None:
        """Announce a line, with a *key* of the terminal, which a service manager does not have."""
        self.manager.status(line)
        self._announce(line + key)


def serving_line(what: str, urls: Iterable[str], metrics: str, loop: str) -> str:
    """Return the line that says what is served where, by which event loop and process.

    *metrics* is what :func:`hr_prometheus.server.metrics_routes.where_metrics_are` returns.
    """
    # The space keeps a terminal, and a person who copies it, from taking the semicolon for a part of the URL.
    return f"hr-prometheus: {what} on {', '.join(urls)}, {metrics} ; {loop}, pid {os.getpid()}"


def with_seconds(line: str, began: float | None) -> str:
    """Return a *line* of :func:`serving_line` with how long a start took that *began* then."""
    return line if began is None else f"{line}, started in {monotonic() - began:.1f} s"


def target_and_routes(target: str, routes: int, workers: str = "") -> str:
    """Return a target with the number of its routes, as in ``app:create (2 routes)``, and its *workers*, if any."""
    return f"{target} ({routes} route{'s' * (routes != 1)}{f', {workers}' if workers else ''})"


def start_timer(seconds: float, function: Callable[[], None]) -> threading.Timer:
    """Call *function* after some *seconds* in another thread, whatever this one is busy with. It can be cancelled."""
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer
