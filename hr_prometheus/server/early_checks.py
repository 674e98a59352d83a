"""Checks of all settings that can be wrong by themselves, without the application and without an address."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aiohttp.web import Application
from prometheus_client import CollectorRegistry

from hr_prometheus.access.guard import check_access
from hr_prometheus.instrumentation import instrument
from hr_prometheus.multiprocess.value_class import leave_multiprocess_mode
from hr_prometheus.server.application import middleware_options, monitor_errors
from hr_prometheus.server.bind import check_addresses
from hr_prometheus.server.importer import file_path
from hr_prometheus.server.log_objects import check_log_objects
from hr_prometheus.server.loops import loop_factory
from hr_prometheus.server.metrics_routes import check_paths
from hr_prometheus.server.pid_file import check_pid_file
from hr_prometheus.server.target import parse_target, script_with_workers_error
from hr_prometheus.server.tls import tls_context

if TYPE_CHECKING:
    from hr_prometheus.settings import Settings


def check_metrics(settings: Settings) -> None:
    """Instrument an application without routes. Raises what ``instrument`` raises for one with any."""
    leave_multiprocess_mode()  # so that nothing is written to its files
    check_paths(settings)
    instrument(Application(), registry=CollectorRegistry(), **middleware_options(settings))


def check_server(settings: Settings) -> None:
    """Check all that ``run`` reads before it imports the application or takes an address. Raises what it raises then."""
    target = parse_target(settings.target) if settings.target or "target" in settings.origins else None
    if target is None or target.attribute is None:  # a script may have a Unix socket of its own
        check_addresses(replace(settings, unix_mode=None))
    else:
        check_addresses(settings)
    if target is not None and target.attribute is None and settings.workers is not None and not settings.reload:
        raise script_with_workers_error(settings.target)
    if target is not None and target.is_file:
        file_path(target)
    if settings.monitor is not None:
        with monitor_errors():
            parse_target(settings.monitor)
    check_log_objects(settings)
    check_pid_file(settings.pid_file)
    loop_factory(settings.loop)
    tls_context(settings)
    check_access(settings)
