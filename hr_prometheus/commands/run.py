"""The command that serves an application."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.commands import options
from hr_prometheus.commands.errors import fail
from hr_prometheus.commands.parameters import Command
from hr_prometheus.commands.streams import Closed, color
from hr_prometheus.errors import HrPrometheusError
from hr_prometheus.server import interrupts

if TYPE_CHECKING:
    from collections.abc import Callable


@click.command(cls=Command, short_help="Serve an application, with its metrics.")
@options.target
@options.arguments
@options.host
@options.port
@options.unix_path
@options.unix_mode
@options.backlog
@options.reuse_port
@options.shutdown_timeout
@options.keepalive_timeout
@options.access_log
@options.log_level
@options.loop
@options.certfile
@options.keyfile
@options.app_dir
@options.workers
@options.worker_timeout
@options.max_requests
@options.metrics_path
@options.metrics_port
@options.metrics_host
@options.fixed_route
@options.allow_values
@options.keep_values
@options.path_budget
@options.exclude
@options.buckets
@options.metric_prefix
@options.detail
@options.monitor
def run(**values: Any) -> None:
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
    announce = _announcer(click.get_current_context().find_root().command)
    try:
        settings = options.settings_of(values)
        if isinstance(sys.stdout, Closed):
            sys.stdout = None  # the application's prints go nowhere, as they would without us
        # After the options, which may be all that is wrong.
        module = "hr_prometheus.server.run" if settings.workers is None else "hr_prometheus.workers.supervisor"
        importlib.import_module(module).run(settings, announce)
    except HrPrometheusError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(interrupts.exit_code())


def _announcer(group: Any) -> Callable[[str], None]:
    """Return a function that prints a line, in any thread; the *group* is told once if that is refused."""

    def announce(line: str) -> None:
        output: Any = sys.stdout or Closed()
        try:
            click.echo(line, file=output, color=color())
        except OSError as error:  # it serves all the same
            group.refuse(error)
        except (ValueError, AttributeError):  # the application has closed or replaced it
            pass

    return announce
