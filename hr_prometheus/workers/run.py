"""From settings to a supervisor and its workers, which serve an application and its metrics."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from hr_prometheus.access.guard import check_access
from hr_prometheus.errors import SettingError
from hr_prometheus.multiprocess.slots import Slots
from hr_prometheus.multiprocess.value_class import leave_multiprocess_mode
from hr_prometheus.server import interrupts
from hr_prometheus.server.announcer import Announcer
from hr_prometheus.server.bind import BoundAddresses, bind_addresses, bind_metrics, remove_unix_sockets
from hr_prometheus.server.logs import configure_logging
from hr_prometheus.server.loops import run_in_new_loop
from hr_prometheus.server.metrics_routes import check_paths
from hr_prometheus.server.pid_file import hold_pid_file
from hr_prometheus.server.target import parse_target, script_with_workers_error
from hr_prometheus.server.target_file import TargetFile
from hr_prometheus.server.tls import tls_context
from hr_prometheus.settings import DEFAULT_HOST
from hr_prometheus.workers.acceptor import Counts
from hr_prometheus.workers.descriptors import LEAST_DESCRIPTORS, check_descriptors
from hr_prometheus.workers.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from hr_prometheus.settings import Settings

#: Files that the supervisor has open for each worker and for a successor: its channel, its stacks, and the two of its numbers.
_DESCRIPTORS_OF_WORKER = 4


def run(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve the target with ``settings.workers`` processes until SIGINT or SIGTERM.

    *announce* is called with a line when all workers serve, and with one for a slow start, for a stop that has to wait,
    and for its end. Raises what :func:`hr_prometheus.server.run.run` raises, if the first worker cannot serve or a worker
    fails when it is stopped.
    """
    is_script = parse_target(settings.target).attribute is None
    if is_script and not settings.reload:
        raise script_with_workers_error(settings.target)
    check_paths(settings)
    check_access(settings)
    tls_context(settings)  # what is wrong is an error here, once, and not in each worker
    configure_logging(settings)
    with (
        interrupts.DefaultHandler(),
        ExitStack() as stack,
        Announcer(announce, lambda: "the application's start-up") as announcer,
    ):
        stack.enter_context(hold_pid_file(settings.pid_file))
        binds_itself = is_script and not settings.fds
        addresses = _bind_around_script(settings, stack) if binds_itself else bind_addresses(settings, {}, stack)
        if settings.file_sd is not None:
            file = stack.enter_context(TargetFile(settings.file_sd, addresses.metrics_url))
            announcer.on_serving, announcer.on_closing = file.publish, file.withdraw
        counts = Counts(Counts.create())
        stack.callback(counts.close)
        slots = Slots(leave_multiprocess_mode())
        stack.callback(slots.remove)
        check_descriptors(_DESCRIPTORS_OF_WORKER * ((settings.workers or 1) + 1) + LEAST_DESCRIPTORS, "the supervisor")
        supervisor = Supervisor(settings, addresses, slots, counts, announcer)
        if binds_itself:
            stack.callback(lambda: remove_unix_sockets(supervisor.urls))
        run_in_new_loop(supervisor.run)
        if supervisor.failure is not None:
            raise supervisor.failure


def _bind_around_script(settings: Settings, stack: ExitStack) -> BoundAddresses:
    """Bind the port of the metrics' own, if they have one. What else a script binds, it binds itself."""
    if settings.metrics_port is not None:
        metrics_sockets, metrics_url = bind_metrics(settings, settings.host or DEFAULT_HOST, stack)
        return BoundAddresses([], metrics_sockets, [], metrics_url)
    if settings.file_sd is not None:
        problem = ": with --reload the metrics of a script need a port of their own, so that it is known. Give --metrics-port 9100."
        raise SettingError("file_sd", f'--file-sd "{settings.file_sd}"', problem)
    return BoundAddresses([], [], [], settings.metrics_path)
