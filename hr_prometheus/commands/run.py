"""The command that serves an application."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.commands import file_options, options, server_options
from hr_prometheus.commands.command import Command
from hr_prometheus.errors import SettingError
from hr_prometheus.origins import Origin
from hr_prometheus.server.inherited import passed_descriptors
from hr_prometheus.settings import Settings

if TYPE_CHECKING:
    from hr_prometheus.commands.streams import StandardOutput


@click.command(cls=Command, short_help="Serve an application, with its metrics.")
@options.target
@options.arguments
@options.app_dir
@server_options.host
@server_options.port
@server_options.unix_path
@server_options.unix_mode
@server_options.fd
@server_options.backlog
@server_options.reuse_port
@server_options.shutdown_timeout
@server_options.keepalive_timeout
@server_options.handler_cancellation
@server_options.access_log
@server_options.access_log_format
@server_options.forwarded_allow_ips
@server_options.log_level
@server_options.log_format
@server_options.log_config
@server_options.loop
@server_options.certfile
@server_options.keyfile
@server_options.pid_file
@server_options.workers
@server_options.worker_timeout
@server_options.boot_timeout
@server_options.max_requests
@server_options.reload
@server_options.reload_dir
@server_options.reload_include
@server_options.reload_exclude
@options.metrics_path
@options.metrics_port
@options.metrics_host
@options.metrics_certfile
@options.metrics_keyfile
@options.metrics_token_file
@options.metrics_web_config
@options.file_sd
@options.status
@options.status_path
@options.slow
@options.series
@options.exemplars
@options.monitor
@options.loop_metrics
@options.blocked_after
@options.client_metrics
@options.client_by_route
@file_options.files
@click.pass_obj
def run(output: StandardOutput, /, **values: Any) -> None:
    """Serve TARGET, with Prometheus metrics of every request.

    TARGET is one of

    \b
      module:attribute      an application, or its factory
      path/to/file.py:attr  the same, in a file
      path/to/script.py     a script, or its module name

    A factory is a function, sync or async, that makes an aiohttp.web.Application. It is called with nothing, or with the
    list of ARGS if it takes one argument. A script calls web.run_app itself. Its own host, port and other arguments of
    run_app hold unless an option here says otherwise.

    A repeatable option's variable holds its values separated by spaces. Exit codes: 0 stopped, 1 an address
    or file was refused, 2 wrong usage, 3 the application failed, 130 interrupted before it served.
    """
    _add_passed_sockets(values)
    settings = Settings(**values)
    output.hand_over()
    # Imported after the options were checked, which may be all that is wrong.
    from hr_prometheus.server.logs import in_log_format

    if settings.workers is None and not settings.reload:
        from hr_prometheus.server.run import run as serve
    else:
        from hr_prometheus.workers.run import run as serve
    serve(settings, in_log_format(output.announce, settings))


def _add_passed_sockets(values: dict[str, Any]) -> None:
    """Have the sockets that systemd has passed served on, as those of ``--fd`` are."""
    descriptors = passed_descriptors()
    if not descriptors:
        return
    if values["fds"]:
        problem = " was given, but systemd has passed sockets as well, by LISTEN_FDS. Leave it out."
        raise SettingError("fd", "--fd", problem)
    text = os.environ["LISTEN_FDS"]
    values["fds"] = descriptors
    values["origins"]["fd"] = Origin("--fd", tuple(map(str, descriptors)), variable="LISTEN_FDS", text=text)
