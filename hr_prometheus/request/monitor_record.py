"""The record of requests that have a monitor each: custom ones, and the default one with a half switched off."""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Any

from hr_prometheus.request.body import received_size, response_size
from hr_prometheus.request.incomplete import CLIENT_CLOSED_REQUEST
from hr_prometheus.request.monitors import RequestMonitor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hr_prometheus.request.exchange import Exchange
    from hr_prometheus.request.monitors import BaseRequestMonitor
    from hr_prometheus.store.cells import Cells


class MonitorRecord:
    """Records the requests with the same labels by a monitor for each of them.

    *make* is the class of the monitors, or a function that makes them; *arguments* are what each is made with.
    """

    def __init__(
        self,
        make: Callable[..., BaseRequestMonitor],
        arguments: Mapping[str, Any],
        labels: tuple[str, ...],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self._make: Any = make
        self._arguments = arguments
        self.labels = labels
        self.loop_time: Cells | None = None
        self._description, self._extra = (labels[0], labels[1]), labels[2:]
        self._failed = failed
        # The labels are there before __init__ runs, so that a custom one finds them as soon as it has called the base
        # class, whatever arguments it hands up. A function makes its monitors as it likes.
        self._new: Any = getattr(make, "__new__", None) if isinstance(make, type) else None

    def begin(self, exchange: Exchange) -> None:
        """Make the monitor of a request and enter it."""
        request, monitor = exchange.request, None
        try:
            new: Any = self._new
            if new is None:
                monitor = self._make(request, **self._arguments)
                monitor.request_description = self._description
            else:
                make, arguments = self._make, self._arguments
                monitor = new(make) if new is object.__new__ else new(make, request, **arguments)
                monitor._described = self._description  # noqa: SLF001  # a monitor is ours to prepare
                if self._extra:
                    monitor._extra = self._extra  # noqa: SLF001  # as above
                monitor.__init__(request, **arguments)
            monitor.__enter__()
        except (Exception, CancelledError) as error:  # noqa: BLE001  # nothing of a monitor's may reach the client
            _leave(monitor)
            self._failed("begin", error)
        else:
            exchange.monitor, exchange.waits = monitor, True

    def end(self, exchange: Exchange, status: str, seconds: float) -> None:
        """Show the monitor how the request has ended, and leave it."""
        monitor, response = exchange.monitor, exchange.response
        if monitor is None:  # it has failed to begin
            return
        try:
            has_status = response is not None and str(response.status) == status
            # Else aiohttp could not send it, and has made another.
            monitor.response = response if has_status or status == CLIENT_CLOSED_REQUEST else None
            monitor.elapsed = seconds
            first = exchange.first_byte_at
            monitor.first_byte_elapsed = first - exchange.began if first else None
            monitor.response_size = exchange.sent or response_size(exchange)
            monitor.request_size = received_size(exchange.request.content)
            monitor.observe(response if has_status else _Outcome(int(status)))
            monitor.__exit__(None, None, None)
        except CancelledError as error:
            self._failed("end", error)
        finally:
            _leave(monitor)


def _leave(monitor: object) -> None:
    """Have a request leave the gauge of what is in progress, if its monitor has left it there."""
    if isinstance(monitor, RequestMonitor):
        monitor._leave()  # noqa: SLF001  # a monitor is ours to end


class _Outcome:
    """Stands for the response of a request that has none, or whose client did not get it."""

    __slots__ = ("status",)

    def __init__(self, status: int) -> None:
        self.status = status
